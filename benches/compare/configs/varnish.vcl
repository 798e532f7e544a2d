vcl 4.1;

backend app {
    .host = "127.0.0.1";
    .port = "@origin_1@";
}

sub vcl_recv {
    # By default, a request with a cookie is not answered from what is stored.
    return (hash);
}

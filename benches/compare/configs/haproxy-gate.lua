-- The key check and round robin for HAProxy, as one would write them who cares for speed: one action, and
-- one header fetched (`req_get_headers` would copy all of them into a table).

local tenants = {
@lua_keys@
}

-- Each thread has its own state and so counts for itself.
local turn = 0

core.register_action("gate", { "http-req" }, function(txn)
    local key = txn.sf:req_fhdr("x-api-key")
    local tenant = tenants[key]
    if not tenant then
        return -- no turn: the configuration denies the request
    end
    local http = txn.http
    http:req_set_header("x-consumer", tenant)
    http:req_del_header("x-api-key")
    turn = turn % 3 + 1
    txn:set_var("txn.turn", turn)
end)

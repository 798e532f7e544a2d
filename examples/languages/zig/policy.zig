//! Who is calling, by their API key?

const std = @import("std");
const bindings = @import("bindings.zig");

/// The C library's: the bindings free what goes out, and have made what comes in.
const allocator = std.heap.c_allocator;

const String = bindings.policy_string_t;
const RequestVerdict = bindings.exports_tollgate_policy_request_hook_verdict_t;
const ResponseVerdict = bindings.exports_tollgate_policy_response_hook_verdict_t;

/// The consumer of each key: what `configure` has read, for the calls that follow.
var consumers: std.StringHashMapUnmanaged([]const u8) = .empty;

export fn exports_tollgate_policy_lifecycle_configure(config: *String, refusal: *String) bool {
    defer bindings.policy_string_free(config);
    // What is read stays as long as the instance.
    const wrong = read(slice(config.*)) catch "the configuration does not fit into the memory";
    if (wrong) |text| refusal.* = given(text);
    return wrong == null;
}

export fn exports_tollgate_policy_request_hook_on_request(verdict: *RequestVerdict) void {
    var name = lent("x-api-key");
    var key: String = undefined;
    if (!bindings.tollgate_policy_request_header(&name, &key)) {
        return problem(verdict, 401, "Unauthorized", "an API key is needed in x-api-key");
    }
    defer bindings.policy_string_free(&key);
    const consumer = consumers.get(slice(key)) orelse {
        return problem(verdict, 401, "Unauthorized", "the API key in x-api-key is not accepted");
    };
    if (!passOn(consumer)) {
        // Otherwise what the client says of itself would count.
        return problem(verdict, 500, "Internal Server Error", "the consumer cannot be named");
    }
    verdict.tag = bindings.EXPORTS_TOLLGATE_POLICY_REQUEST_HOOK_VERDICT_NEXT;
}

export fn exports_tollgate_policy_response_hook_on_response(verdict: *ResponseVerdict) void {
    var name = lent("x-policy");
    var value = lent("api-key");
    var failure: bindings.tollgate_policy_response_header_error_t = undefined;
    // A response without it is still a response.
    _ = bindings.tollgate_policy_response_set_header(&name, &value, &failure);
    verdict.tag = bindings.EXPORTS_TOLLGATE_POLICY_RESPONSE_HOOK_VERDICT_NEXT;
}

fn passOn(consumer: []const u8) bool {
    var failure: bindings.tollgate_policy_request_header_error_t = undefined;
    var name = lent("x-consumer");
    var value = lent(consumer);
    if (!bindings.tollgate_policy_request_set_header(&name, &value, &failure)) return false;
    name = lent("x-api-key");
    return bindings.tollgate_policy_request_remove_header(&name, &failure);
}

/// Reads `{"keys": {"consumer": "key"}}`. Null, or what is wrong with it.
fn read(text: []const u8) error{OutOfMemory}!?[]const u8 {
    const config = std.json.parseFromSliceLeaky(std.json.Value, allocator, text, .{}) catch |failure| switch (failure) {
        error.OutOfMemory => return error.OutOfMemory,
        else => return "`config` is not valid JSON",
    };
    if (config != .object) return "`config` is not a table";
    for (config.object.keys()) |name| {
        if (!std.mem.eql(u8, name, "keys")) {
            return try std.fmt.allocPrint(allocator, "there is no key `{s}` in `config`", .{name});
        }
    }
    const keys = config.object.get("keys") orelse return "`keys` is missing";
    if (keys != .object or keys.object.count() == 0) return "`keys` is not a table of consumers with their keys";
    var entries = keys.object.iterator();
    while (entries.next()) |entry| {
        if (entry.value_ptr.* != .string or entry.value_ptr.string.len == 0) {
            return try std.fmt.allocPrint(allocator, "`keys.{s}` is not a key", .{entry.key_ptr.*});
        }
        try consumers.put(allocator, entry.value_ptr.string, entry.key_ptr.*);
    }
    return null;
}

/// A problem document (RFC 9457) as an answer.
fn problem(verdict: *RequestVerdict, status: u16, comptime title: []const u8, comptime detail: []const u8) void {
    const fields = [_][2][]const u8{
        .{ "content-type", "application/problem+json" },
        .{ "cache-control", "no-store" },
        .{ "www-authenticate", "ApiKey" },
    };
    var buffer: [256]u8 = undefined;
    const body = given(std.fmt.bufPrint(
        &buffer,
        \\{{"type":"about:blank","title":"{s}","status":{d},"detail":"{s}"}}
    ,
        .{ title, status, detail },
    ) catch unreachable);
    const headers = allocator.alloc(bindings.tollgate_policy_types_header_t, fields.len) catch @trap();
    for (headers, fields) |*header, field| header.* = .{ .f0 = given(field[0]), .f1 = given(field[1]) };

    verdict.tag = bindings.EXPORTS_TOLLGATE_POLICY_REQUEST_HOOK_VERDICT_REPLY;
    verdict.val.reply = .{
        .status = status,
        .headers = .{ .ptr = headers.ptr, .len = headers.len },
        .body = .{ .ptr = body.ptr, .len = body.len },
    };
}

/// Lent to the host for a call.
fn lent(text: []const u8) String {
    return .{ .ptr = @constCast(text.ptr), .len = text.len };
}

/// A copy, for the bindings to free.
fn given(text: []const u8) String {
    const copy = allocator.dupe(u8, text) catch @trap();
    return .{ .ptr = copy.ptr, .len = copy.len };
}

fn slice(text: String) []const u8 {
    return text.ptr[0..text.len];
}

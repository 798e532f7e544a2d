// Package policy tells who is calling, by their API key.
package policy

import (
	"encoding/json"
	"fmt"

	"wit_component/tollgate_policy_request"
	"wit_component/tollgate_policy_request_hook"
	"wit_component/tollgate_policy_response"
	"wit_component/tollgate_policy_response_hook"

	wit "go.bytecodealliance.org/pkg/wit/types"
)

// The consumer of each key: what Configure has read, for the calls that follow.
var consumers map[string]string

// Configure reads {"keys": {"consumer": "key"}}. An error refuses the configuration, with its words.
func Configure(config string) error {
	var tables map[string]json.RawMessage
	if err := json.Unmarshal([]byte(config), &tables); err != nil || tables == nil {
		return fmt.Errorf("`config` is not a table")
	}
	for name := range tables {
		if name != "keys" {
			return fmt.Errorf("there is no key `%s` in `config`", name)
		}
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(tables["keys"], &keys); err != nil || len(keys) == 0 {
		return fmt.Errorf("`keys` is not a table of consumers with their keys")
	}
	consumers = make(map[string]string, len(keys))
	for consumer, text := range keys {
		var key string
		if err := json.Unmarshal(text, &key); err != nil || key == "" {
			return fmt.Errorf("`keys.%s` is not a key", consumer)
		}
		consumers[key] = consumer
	}
	return nil
}

// OnRequest turns away who has no key, and names who has one to the upstream.
func OnRequest() tollgate_policy_request_hook.Verdict {
	enterHook()
	key := tollgate_policy_request.Header("x-api-key")
	if key.IsNone() {
		return problem(401, "Unauthorized", "an API key is needed in x-api-key")
	}
	consumer, found := consumers[key.Some()]
	if !found {
		return problem(401, "Unauthorized", "the API key in x-api-key is not accepted")
	}
	if tollgate_policy_request.SetHeader("x-consumer", consumer).IsErr() ||
		tollgate_policy_request.RemoveHeader("x-api-key").IsErr() {
		// Otherwise what the client says of itself would count.
		return problem(500, "Internal Server Error", "the consumer cannot be named")
	}
	return tollgate_policy_request_hook.MakeVerdictNext()
}

// OnResponse says which policy a response has passed; one that cannot say so is still a response.
func OnResponse() tollgate_policy_response_hook.Verdict {
	enterHook()
	tollgate_policy_response.SetHeader("x-policy", "api-key")
	return tollgate_policy_response_hook.MakeVerdictNext()
}

// A problem document (RFC 9457) as an answer.
func problem(status uint16, title, detail string) tollgate_policy_request_hook.Verdict {
	body := fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"detail":%q}`, title, status, detail)
	return tollgate_policy_request_hook.MakeVerdictReply(tollgate_policy_request_hook.Reply{
		Status: status,
		Headers: []wit.Tuple2[string, string]{
			{F0: "content-type", F1: "application/problem+json"},
			{F0: "cache-control", F1: "no-store"},
			{F0: "www-authenticate", F1: "ApiKey"},
		},
		Body: []byte(body),
	})
}

// Package export_tollgate_policy_response_hook is where the bindings look for `response-hook`.
package export_tollgate_policy_response_hook

import (
	"wit_component/policy"
	"wit_component/tollgate_policy_response_hook"
)

func OnResponse() tollgate_policy_response_hook.Verdict {
	return policy.OnResponse()
}

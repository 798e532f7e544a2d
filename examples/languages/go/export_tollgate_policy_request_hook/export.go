// Package export_tollgate_policy_request_hook is where the bindings look for `request-hook`.
package export_tollgate_policy_request_hook

import (
	"wit_component/policy"
	"wit_component/tollgate_policy_request_hook"
)

func OnRequest() tollgate_policy_request_hook.Verdict {
	return policy.OnRequest()
}

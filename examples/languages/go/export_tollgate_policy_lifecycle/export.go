// Package export_tollgate_policy_lifecycle is where the bindings look for `lifecycle`.
package export_tollgate_policy_lifecycle

import (
	"wit_component/policy"

	wit "go.bytecodealliance.org/pkg/wit/types"
)

func Configure(config string) wit.Result[wit.Unit, string] {
	if err := policy.Configure(config); err != nil {
		return wit.Err[wit.Unit, string](err.Error())
	}
	return wit.Ok[wit.Unit, string](wit.Unit{})
}

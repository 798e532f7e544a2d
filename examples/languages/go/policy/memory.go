package policy

import (
	"runtime/debug"

	bindings "go.bytecodealliance.org/pkg/wit/runtime"
)

// Calls between two collections of garbage.
const callsPerCollection = 2000

var calls int

// Garbage is collected in hooks alone. Left to itself the collector would start whenever memory is allocated, also
// while the host passes an argument or a result, when a component must not call out: it would trap.
func init() {
	debug.SetGCPercent(-1)
}

// enterHook comes first in every hook. The bindings pin what the host has passed until they are told to let go,
// which they do by themselves only in functions with arguments.
//
// runtime.GC would leave free memory for a goroutine in the background to return, which sleeps between two steps;
// a hook pays for that with its time. FreeOSMemory leaves nothing to it.
func enterHook() {
	bindings.Unpin()
	if calls++; calls%callsPerCollection == 0 {
		debug.FreeOSMemory()
	}
}

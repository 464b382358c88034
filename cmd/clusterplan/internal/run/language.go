package run

import (
	"os"

	"github.com/clusterplan/clusterplan/lang"
)

// Language says what may stand in a definition, without one: for editors, and
// to describe it.
func Language(version string) lang.Options {
	s := newSession(Options{Version: version})
	return lang.Options{Version: version, Env: os.Environ(), Providers: s.places(), Machinery: s.registry.Machinery()}
}

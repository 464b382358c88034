package pki

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A host whose clock has jumped to before the cluster was made, or beyond its
// authority's end, signs nothing, and says why: nobody would take it.
func TestClockThatJumps(t *testing.T) {
	id := identity(t, "c") // of today; a bubble begins in the year 2000
	synctest.Test(t, func(t *testing.T) {
		_, err := id.ClientCert("anna", "admin", ClientLife)
		if err == nil || !strings.Contains(err.Error(), "by this host's clock it is 2000-01-01T00:00:00Z") || !strings.Contains(err.Error(), "set the clock") {
			t.Errorf("before the authority: %v", err)
		}
		time.Sleep(100 * 365 * 24 * time.Hour)
		_, err = id.NodeCert("00000000000000a1", "n1", NodeLife)
		if err == nil || !strings.Contains(err.Error(), "has expired at") || !strings.Contains(err.Error(), "clock is wrong") {
			t.Errorf("after it: %v", err)
		}
	})
}

package e2e

import (
	"os"
	"testing"
)

// One static binary is copied to every node and mapped by every agent, monitor
// and guardian: it stays under its budget.
func TestProgramSize(t *testing.T) {
	// Of it go-git takes 4 MB, encryption and the language server 1.5 MB,
	// libvirt's protocol 1 MB, SSH and SFTP as much. An agent has no page of these in
	// memory: it lets go of what their start has touched.
	const budget = 33_000_000 // bytes
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the program has %.1f MB", float64(info.Size())/1e6)
	if info.Size() > budget {
		t.Errorf("the program has %d bytes, more than its budget of %d: what was linked in?", info.Size(), budget)
	}
}

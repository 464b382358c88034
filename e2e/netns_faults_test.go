package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// Every kind of real fault happens to a cluster of three in a network lab, and
// some of them two at once, while a client probes the group's address every
// 10 ms and others use the database. Two nodes never hold the address, no owner
// that was followed answers, the database is linearizable, and after each round
// everything is online again. bench/faults does the same at random for hours.
func TestNetnsFaults(t *testing.T) {
	if err := netlab.Allowed(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	t.Parallel()
	disks := true
	if err := faultlab.DisksAllowed(); err != nil {
		t.Logf("full and slow disks are left out: %v", err)
		disks = false
	}
	c, err := faultlab.Up(t.Context(), faultlab.Config{Program: program, Dir: t.TempDir(), Nodes: 3, Disks: disks, Links: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	r, err := faultlab.NewRunner(c, seed, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rounds := [][]string{
		{"agent killed"}, {"monitor killed"}, {"agent and monitor killed"}, {"everything killed"},
		{"everything stopped"}, {"agent stopped"}, {"monitor stopped"},
		{"isolated"}, {"mute"}, {"deaf"}, {"bridge"}, {"split"}, {"one way to one"}, {"flapping link"}, {"20% loss"}, {"moved"},
		{"one of two links"}, {"loss on one of two links"}, {"links in turn"},
		{"full disk"}, {"slow disk"},
		{"isolated", "monitor killed"}, {"everything stopped", "20% loss"}, {"bridge", "everything killed"}, {"moved", "flapping link"}, {"one of two links", "agent killed"},
	}
	known := map[string]bool{}
	for _, names := range rounds {
		var faults []faultlab.Fault
		for _, name := range names {
			f, err := faultlab.FaultNamed(name)
			if err != nil {
				t.Fatal(err)
			}
			faults, known[name] = append(faults, f), true
		}
		if faults[0].Disk && !disks {
			continue
		}
		if err := r.Round(t.Context(), faults...); err != nil {
			logs := filepath.Join(t.ArtifactDir(), "logs")
			t.Fatalf("%v: %v; what the nodes said is kept in %s (go test -artifacts): %v", names, err, logs, faultlab.Keep(c, logs))
		}
	}
	for _, f := range faultlab.Faults() {
		if !known[f.Name] {
			t.Errorf("the fault %q is not tried", f.Name)
		}
	}
	if r.Total.Operations < 20*len(rounds) {
		t.Errorf("only %d operations on the database were answered", r.Total.Operations)
	}
	t.Logf("%+v", r.Total)
}

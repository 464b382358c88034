package monitor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// vip starts an address as resource v of a group.
func vip(a netip.Addr, edit ...func(*Start)) Order {
	s := Start{
		Group: "g", GroupName: "web", Epoch: 1, StopWithin: spec.Duration(100 * time.Millisecond),
		Resource: spec.Resource{ID: "id-v", Name: "v", Type: "ip_address", Attributes: map[string]any{"address": a.String()}},
	}
	for _, e := range edit {
		e(&s)
	}
	return Order{Start: &s}
}

var vips = map[string]netip.Addr{"ipv4": netip.MustParseAddr("10.99.0.50"), "ipv6": netip.MustParseAddr("fd99::50")}

// However a monitor ends, its addresses are gone, and answer from the next
// owner; never are two there.
func TestAddressDiesWithTheMonitor(t *testing.T) {
	for family, a := range vips {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			lan := addresstest.New(t)
			one, two, client := lan.Host(), lan.Host(), lan.Host()
			events := addresstest.Events(t, one, two)
			for _, how := range []string{"killed", "stopped under a lease that ends", "without a lease", "its group is ended"} {
				r := startRigOn(t, newDir(t), one)
				r.await("ready", func(w Word) bool { return w.Ready != nil })
				r.renew(time.Hour)
				r.send(vip(a))
				r.awaitState("v", spec.StateOnline)
				if !client.Ping(a, time.Second) {
					t.Fatalf("%s: it doesn't answer before", how)
				}
				switch how {
				case "killed":
					r.p.Kill()
				case "stopped under a lease that ends":
					end := r.renew(time.Second)
					r.send(Order{Stop: &ResourceRef{"none", 1, "none"}})
					r.await("the lease taken", func(w Word) bool { return w.Changed != nil && w.Changed.Group == "none" })
					if err := unix.Kill(r.p.PID(), unix.SIGSTOP); err != nil {
						t.Fatal(err)
					}
					if boottime.Now() > end {
						t.Skip("this machine is too busy: the lease ended before the monitor was stopped")
					}
				case "without a lease":
					r.renew(time.Millisecond)
				case "its group is ended":
					r.send(Order{End: &GroupRef{"g", 1}})
					r.awaitDown("g", 1)
					if one.Has(a) {
						t.Fatal("there after Down")
					}
				}
				eventually(t, how+": gone", func() bool { return !one.Has(a) })

				s := startRigOn(t, newDir(t), two)
				s.await("ready", func(w Word) bool { return w.Ready != nil })
				s.renew(time.Hour)
				s.send(vip(a))
				s.awaitState("v", spec.StateOnline)
				eventually(t, how+": the client's cache moves by being told", func() bool { return client.Neighbour(a).String() == two.MAC().String() })
				if !client.Ping(a, time.Second) {
					t.Fatalf("%s: it doesn't answer after", how)
				}
				s.p.Kill()
				eventually(t, "gone from the second", func() bool { return !two.Has(a) })
				r.p.Kill()
				<-r.p.Done()
			}
			at := ""
			for n := 0; n < 16; {
				var e addresstest.Event
				select {
				case e = <-events:
				case <-time.After(patience):
					t.Fatalf("only %d events", n)
				}
				if e.Address != a {
					continue
				}
				n++
				switch host := e.Host.IPv4().String(); {
				case e.Added && at == "":
					at = host
				case !e.Added && at == host:
					at = ""
				default:
					t.Fatalf("event %d: the address on %q, then on %s: added %v", n, at, host, e.Added)
				}
			}
		})
	}
}

// One address of two goes with its group; one that is taken is no start.
func TestAddressesOfGroups(t *testing.T) {
	t.Parallel()
	lan := addresstest.New(t)
	one, other := lan.Host(), lan.Host()
	r := startRigOn(t, newDir(t), one)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.renew(time.Hour)
	a, b := vips["ipv4"], vips["ipv6"]
	r.send(vip(a))
	r.awaitState("v", spec.StateOnline)
	r.send(vip(b, func(s *Start) { s.Group, s.GroupName, s.Resource.Name = "h", "sql", "w" }))
	r.awaitState("w", spec.StateOnline)
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	if one.Has(a) || !one.Has(b) {
		t.Fatalf("after the one group's end: %v %v", one.Has(a), one.Has(b))
	}
	one.Remove(b)
	if got := r.awaitState("w", spec.StateFailed); !strings.Contains(got.Reason, "somebody took it away") {
		t.Fatal(got.Reason)
	}
	r.send(vip(other.IPv4()))
	if got := r.awaitState("v", spec.StateFailed); !strings.Contains(got.Reason, other.MAC().String()+" answered") {
		t.Fatal(got.Reason)
	}
	// What the record says of a device that is gone hinders nobody.
	r.p.Kill()
	<-r.p.Done()
	r = startRigOn(t, r.dir, one)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
}

// How long after a kill, or after the end of a stopped monitor's lease and
// stop_within, the address is gone, with so many addresses on the device.
func BenchmarkAddressGone(b *testing.B) {
	lan := addresstest.New(b)
	host := lan.Host()
	a := vips["ipv4"]
	events := addresstest.Events(b, host)
	for _, stopped := range []bool{false, true} {
		name := map[bool]string{false: "killed", true: "stopped"}[stopped]
		b.Run(name, func(b *testing.B) {
			var worst time.Duration
			var sum time.Duration
			for range b.N {
				r := startRigOn(b, newDir(b), host)
				r.await("ready", func(w Word) bool { return w.Ready != nil })
				r.renew(time.Hour)
				r.send(vip(a))
				r.awaitState("v", spec.StateOnline)
				due := boottime.Now()
				if stopped {
					due = r.renew(500 * time.Millisecond).Add(100 * time.Millisecond)
					r.send(Order{Stop: &ResourceRef{"none", 1, "none"}})
					r.await("the lease taken", func(w Word) bool { return w.Changed != nil && w.Changed.Group == "none" })
					_ = unix.Kill(r.p.PID(), unix.SIGSTOP)
				} else {
					r.p.Kill()
				}
				for e := range events {
					if e.Address == a && !e.Added {
						break
					}
				}
				took := boottime.Now().Sub(due)
				sum, worst = sum+took, max(worst, took)
				<-r.p.Done()
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(b.N)/1000, "ms-mean")
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst")
		})
	}
}

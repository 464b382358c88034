package spec

import (
	"fmt"
	"path"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Timings of quorum model single_quorum, all in D_io (DeviceIO): how long one
// read or write of the device may take before it counts as failed. runtime/
// confdb/diskdb says what they are for.

// DefaultDeviceIO is D_io unless the heartbeat block names one.
const DefaultDeviceIO = Duration(200 * time.Millisecond)

// Timings are the cluster's timings, complete.
func (c *Cluster) Timings() Timings {
	t := c.Heartbeat
	if c.Quorum.Model == SingleQuorum && t.DeviceIO == 0 {
		t.DeviceIO = DefaultDeviceIO
	}
	return t.WithDefaults()
}

// deviceLease is how many D_io an owner's authority lasts: the owner renews
// each D_io, and a renewal is a write and a read that take up to D_io each. So
// a device that keeps to D_io never costs its owner the authority.
const deviceLease = 4

// DeviceLease is how long the authority of a device's owner lasts, from before
// the issue of its newest renewal, on the owner's own clock.
func DeviceLease(io time.Duration) time.Duration { return deviceLease * io }

// DeviceSilence is how long a challenger has to see an owner's sector
// unchanged, on its own clock, until the owner's authority is over.
func DeviceSilence(io time.Duration) time.Duration { return StretchRho(DeviceLease(io)) }

// DeviceHold is how long a claim is held before all sectors are read back.
func DeviceHold(io time.Duration) time.Duration { return 2 * io }

// deviceChallenge is the longest unsplit change of a device's owner, from the
// silence of the old one to a lease from the new one: suspicion and three
// ranks, a first read, the silence, the claim (it has to land within D_io of
// the read that it rests on), its hold and reading back, a read and a write of
// the log, its publishing and reading back, and two frames.
func (t Timings) deviceChallenge() time.Duration {
	d := t.DeviceIO.D()
	sum := t.Suspicion.D() + 3*t.RankDelay.D() + d + DeviceSilence(d) + d + DeviceHold(d) + d + 2*d + 2*d + 2*t.Interval.D()
	return (sum + time.Millisecond - 1).Truncate(time.Millisecond)
}

// DeviceLeaseFloor is the shortest lease of single_quorum under which an
// unsplit change of the device's owner stops nobody: device lease + challenge.
func (t Timings) DeviceLeaseFloor() time.Duration {
	return DeviceLease(t.DeviceIO.D()) + t.deviceChallenge()
}

// DeviceDelay is how much later than an owner's last authority its successor
// counts from: what it can tell of it is the first read of the device that it
// makes once the owner is silent. 0 without a device.
func (t Timings) DeviceDelay() time.Duration {
	if t.DeviceIO == 0 {
		return 0
	}
	return t.Interval.D() + t.Suspicion.D() + t.RankDelay.D() + t.DeviceIO.D()
}

func (t Timings) deviceLeaseDefault() time.Duration {
	if t.DeviceIO <= 0 {
		return 0
	}
	const step = 100 * time.Millisecond
	return (t.DeviceLeaseFloor() + step - 1) / step * step
}

// deviceProblem is Problem for single_quorum.
func (t Timings) deviceProblem() string {
	d := t.DeviceIO.D()
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("device_io %s is too short for a read or write of a shared device; 10ms is the least", t.DeviceIO)
	case t.Lease.D() < t.DeviceLeaseFloor():
		return fmt.Sprintf("lease %s is shorter than a change of the quorum device's owner takes: device lease 4 x %s + challenge (suspicion, silence, claim, hold, log) %s = %s",
			t.Lease, t.DeviceIO, Duration(t.deviceChallenge()), Duration(t.DeviceLeaseFloor()))
	case t.Suspicion.D() < 2*t.Interval.D():
		return fmt.Sprintf("suspicion %s is shorter than two frames of %s: one lost frame would take a node down", t.Suspicion, t.Interval)
	}
	return ""
}

// device checks the rules of single_quorum.
func (c *checker) device() {
	d, at := c.d, addr.Cluster()
	switch dev := d.Cluster.Quorum.Device; {
	case dev == "":
		c.add(at, "quorum.device", "No quorum device", "Quorum model single_quorum needs the file or block device that every node sees. Set device to its absolute path, which is the same on every node, as /dev/disk/by-id/... or /srv/quorum/NAME.")
	case !path.IsAbs(dev) || path.Clean(dev) != dev:
		c.add(at, "quorum.device", "Invalid quorum device", "%q is no absolute path without dots. The device has the same path on every node, as /dev/disk/by-id/... or /srv/quorum/NAME.", dev)
	}
	if len(d.Nodes) < 2 {
		c.add(at, "quorum.model", "single_quorum with one node", "Quorum model single_quorum is for two nodes or more, and there is one. Add a node that reaches the device, or use model = \"single_node\".")
	}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if n.Witness() {
			c.add(n.Addr, "role", "Witness beside a quorum device", "Node %s is a witness, and with quorum model single_quorum the device decides: votes don't count. Remove the node or its role.", n.Name)
		}
		if n.Votes == 0 {
			c.add(n.Addr, "votes", "votes = 0 beside a quorum device", "With quorum model single_quorum votes don't count: every node may own the device. Remove votes from node %s.", n.Name)
		}
	}
}

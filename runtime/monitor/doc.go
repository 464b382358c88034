// Package monitor is the process that hosts a node's resources, apart from the
// agent that decides about them, so that a hanging or crashing resource can't
// hurt the agent, and so that what serves dies on time though the agent or
// this very process hangs.
//
// Three kinds of processes, one program:
//
//	agent ── socket pair, JSON lines (wire.go) ──> monitor ── guardian ── program
//	                                                      └── guardian ── program
//
// The agent starts its monitor with StartProcess and talks to it through a
// Process. Its lease's end is the one thing that the monitor isn't told but
// reads, from memory that both share (lease.go). The monitor (Main) takes the node's lock, kills what an earlier
// monitor left, says Ready, and then starts and stops resources as it is told,
// each in an instance of its own (instance.go); one loop owns the state
// (loop.go). Each program runs under a guardian (guard.go).
//
// What the monitor promises:
//
//   - After Down of a group, nothing of that group under that epoch or an older
//     one is left on this host, but for what a process can do to escape: below.
//   - Nothing is started under an epoch older than the newest that was seen for
//     its group, in this monitor's life or an earlier one's (record.go).
//   - Nothing outlives the lease by more than its group's stop_within, and the
//     time that the kernel takes to kill. At the lease's end the monitor stops
//     all groups, dependents first; shortly before a group's stop_within is over
//     it kills the rest; when that is over, the kernel kills the monitor
//     (deadman.go), and with it everything. What is to go on without a lease, a
//     monitor of another kind hosts (freezer.go).
//   - What hangs in the kernel so that not even that ends it, the agent hears of
//     from here, and resets the node where it may (remains.go).
//   - When the agent dies, the monitor serves until its lease's end, stops
//     everything and exits.
//   - After Ready, nothing of an earlier monitor is left.
//
// Added addresses lie on a device that this process holds open (runtime/address):
// the kernel removes them with it.
//
// Its loop waits for nothing that takes time: not for a disk (record.go), not for
// the start of a program (children.go).
//
// What can escape: a process that another daemon starts on request (systemd, cron,
// at, docker), and one of root's that moves itself into another cgroup. Where
// there is no cgroup to hold programs (cgroup.go), also a grandchild that has wiped
// the environment it was started with, when the monitor and its guardian are
// killed at one blow.
//
// A resource may have a monitor process of its own (apart.go).
package monitor

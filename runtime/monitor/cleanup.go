package monitor

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// guardianPatience is how long guardians of a monitor that died have to end by
// themselves. They need a few milliseconds, and leave nothing; one that is
// killed leaves its orphans to the search by token.
const guardianPatience = time.Second

// cleanUp kills what earlier monitors of this node left, and returns when
// nothing is. The node's lock is held, so they are dead; their guardians are
// dying. It kills exactly the processes that the record names (by id and start
// time) and those that carry the token of an earlier monitor in the environment
// they were started with. It reports how many it had to kill; tell is called
// now and then while some can't be killed.
func cleanUp(r *record, tell func(pids []int)) int {
	tokens, guardians := r.left()
	killed := map[int]bool{}
	give := time.Now().Add(guardianPatience)
	for _, g := range guardians {
		is := func(s procStat) bool { return s.start == g.Start && s.state != 'Z' }
		signalIf(g.PID, unix.SIGCONT, is)
		for time.Now().Before(give) && alive(g) {
			time.Sleep(2 * time.Millisecond)
		}
		if signalIf(g.PID, unix.SIGKILL, is) {
			killed[g.PID] = true
		}
	}
	if len(tokens) == 0 {
		return len(killed)
	}
	var began time.Time // when the first search, which may take long, had killed what it found
	told := time.Second
	for wait := time.Millisecond; ; wait = min(wait*2, 100*time.Millisecond) {
		var found []int
		for _, pid := range allPIDs() {
			carries := func(s procStat) bool {
				return s.state != 'Z' && s.state != 'X' && slices.ContainsFunc(tokens, func(t string) bool { return holdsToken(pid, t) })
			}
			if signalIf(pid, unix.SIGKILL, carries) {
				found = append(found, pid)
				killed[pid] = true
			}
		}
		for _, g := range guardians {
			if alive(g) {
				found = append(found, g.PID)
			}
		}
		if len(found) == 0 {
			return len(killed)
		}
		if began.IsZero() {
			began = time.Now()
		}
		if since := time.Since(began); since > told {
			tell(found)
			told *= 2
		}
		time.Sleep(wait)
	}
}

// alive tells whether that very process is there, with a thread that is no zombie.
func alive(p processID) bool {
	s, err := statOf(p.PID)
	return err == nil && s.start == p.Start && !s.ended()
}

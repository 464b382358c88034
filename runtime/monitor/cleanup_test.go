package monitor

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// A search of /proc that takes long, as on a busy host, tells nobody of what it has
// only just killed: an agent would reset its node for it.
func TestSlowSearch(t *testing.T) {
	token := newToken()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = append(os.Environ(), tokenVariable+"="+token)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	began := time.Now()
	for _, pid := range allPIDs() {
		holdsToken(pid, token)
	}
	// Tokens of monitors that left nothing, so many that a search takes longer than what is told late.
	tokens := slices.Repeat([]string{newToken()}, int(1500*time.Millisecond/time.Since(began))+1)
	r := &record{data: recordData{Tokens: append(tokens, token)}}
	if killed := cleanUp(r, func(pids []int) { t.Errorf("told of %v", pids) }); killed != 1 {
		t.Errorf("%d processes were killed", killed)
	}
	<-ended
}

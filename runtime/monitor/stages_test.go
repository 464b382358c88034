package monitor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// The monitor is killed at each stage of a start and a stop: the next one is ready
// only when nothing is left, neither a process nor something that a script has turned
// on; and it starts the same again.
func TestKilledAtEachStage(t *testing.T) {
	for _, stage := range []string{
		"the start ordered", "its guardian recorded", "the program starts", "online", "the stop ordered", "the program asked to stop",
		"the end ordered", "the script's start ordered", "the script turns on", "the script on", "the script turns off",
	} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			r := ready(t)
			at := func(name string) string { return filepath.Join(r.dir, name) }
			there := func(name string) {
				eventually(t, name, func() bool { return exists(at(name)) })
			}
			// What it leaves behind ignores whom it is asked by, and has no session,
			// parent or input in common with it.
			program := fmt.Sprintf("trap 'touch %s' TERM; ( setsid sh -c 'trap \"\" TERM HUP; echo $$ >> %s; while :; do sleep 1000; done' & ); touch %s; while :; do sleep 1000 & wait; done",
				at("asked"), at("pids"), at("begun"))
			turn := script(fmt.Sprintf("touch %s; sleep 0.1; touch %s", at("turning"), at("on")), fmt.Sprintf("touch %s; sleep 0.1; rm -f %s %s", at("off"), at("on"), at("turning")))
			order := app(program)
			ref := ResourceRef{"g", 1, "a"}
			if turned := map[string]bool{"the script's start ordered": true, "the script turns on": true, "the script on": true, "the script turns off": true}; turned[stage] {
				order, ref = turn, ResourceRef{"g", 7, "s"}
			}
			online := func() { t.Helper(); r.awaitState(ref.Resource, spec.StateOnline) }
			r.send(order)
			switch stage {
			case "its guardian recorded":
				eventually(t, stage, func() bool {
					var d recordData
					b, _ := os.ReadFile(at("run/record.json"))
					return json.Unmarshal(b, &d) == nil && len(d.Guardians) > 0
				})
			case "the program starts":
				there("begun")
			case "online", "the script on":
				online()
			case "the stop ordered":
				online()
				r.send(Order{Stop: &ref})
			case "the program asked to stop":
				there("begun") // and what it does when asked is set: online is before that
				online()
				r.send(Order{Stop: &ref})
				there("asked")
			case "the end ordered":
				online()
				r.send(Order{End: &GroupRef{ref.Group, ref.Epoch}})
			case "the script turns on":
				there("turning")
			case "the script turns off":
				online()
				r.send(Order{Stop: &ref})
				there("off")
			}
			first := r.p
			first.Kill()
			<-first.Done()
			r = startRig(t, r.dir)
			r.await("ready", func(w Word) bool { return w.Ready != nil })
			if left := first.Remains(); left != "" {
				t.Errorf("the next monitor is ready, and there is %s", left)
			}
			if exists(at("turning")) || exists(at("on")) {
				t.Error("the next monitor is ready, and what the script has turned on is on")
			}
			r.renew(patience)
			r.send(order)
			online()
			r.send(Order{End: &GroupRef{ref.Group, ref.Epoch}})
			r.awaitDown(ref.Group, ref.Epoch)
		})
	}
}

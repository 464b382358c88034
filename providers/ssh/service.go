package ssh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/providers"
)

// What belongs to a node is found by its environment, even where its parents
// are gone: agent and monitor have marker with the node's directory, all that a
// monitor starts has token, with a number that the monitor's record names.
const (
	marker = "CLUSTERPLAN_NODE_DIR"
	token  = "CLUSTERPLAN_MONITOR"
)

// Files of a node that only this provider has.
const (
	superviseFile = "supervise"
	supervisorPID = "run/supervisor.pid"
)

// recordFiles are those of a node's monitors.
var recordFiles = []string{"run/record.json", "run/freezer.json"}

const (
	pollEvery  = 200 * time.Millisecond
	orphanWait = 15 * time.Second // for a monitor whose agent is gone
	killWait   = 10 * time.Second // for killed processes to be gone
	keepLogs   = 3
)

// unitName is the node's unit.
func unitName(root, dir string) string {
	return "clusterplan-" + path.Base(dir) + suffix(root) + ".service"
}

// unit is the text of the node's unit. The agent alone is systemd's to stop and
// to watch: its monitor and what that runs end by their lease, as on any host, so
// that an agent that is started again finds its groups running.
func unit(root, dir string) string {
	abs := path.Join(root, dir)
	return fmt.Sprintf(`# Written by clusterplan apply; changes are undone by the next one.
[Unit]
Description=clusterplan node %[1]s
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
Environment=%[3]s=%[2]s
WorkingDirectory=%[2]s
ExecStart=%[2]s/%[4]s agent --dir %[2]s
StandardOutput=append:%[2]s/%[5]s
StandardError=inherit
Restart=always
RestartSec=1
TimeoutStartSec=infinity
WatchdogSec=30
KillMode=process
TimeoutStopSec=40
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
LimitMEMLOCK=infinity
UMask=0077

[Install]
WantedBy=multi-user.target
`, path.Base(dir), abs, marker, providers.AgentLink, providers.AgentLog)
}

// supervise is the script that keeps an agent running where there is no systemd.
// TERM ends the agent, and then it.
func supervise(root, dir string) string {
	abs := path.Join(root, dir)
	return fmt.Sprintf(`#!/bin/sh
# Written by clusterplan apply: keeps the agent of this node running. To have it
# run after a boot, start it from this host's init: %[2]s=%[1]s setsid sh %[1]s/%[6]s
cd %[1]s || exit 1
umask 077
mkdir -p run log
echo $$ >%[5]s
over=
child=
trap 'over=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
trap '' HUP
pause=1
while [ -z "$over" ]; do
	began=$(date +%%s)
	%[1]s/%[3]s agent --dir %[1]s >>%[4]s 2>&1 </dev/null &
	child=$!
	[ -z "$over" ] || kill -TERM "$child" 2>/dev/null
	while kill -0 "$child" 2>/dev/null; do wait "$child"; done
	child=
	[ -z "$over" ] || break
	if [ $(($(date +%%s) - began)) -ge 30 ]; then pause=1; fi
	echo "the agent has ended; it is started again in ${pause}s" >>%[4]s
	sleep "$pause" &
	child=$!
	[ -z "$over" ] || kill -TERM "$child" 2>/dev/null
	wait "$child"
	child=
	pause=$((pause * 2))
	if [ "$pause" -gt 8 ]; then pause=8; fi
done
read -r p <%[5]s 2>/dev/null && [ "$p" = $$ ] && rm -f %[5]s # not that of one that came after
`, abs, marker, providers.AgentLink, providers.AgentLog, supervisorPID, superviseFile)
}

// Prepare writes what starts the agent again, after its end and after a boot.
func (h *host) Prepare(ctx context.Context, dir string) error {
	f, err := h.known(ctx)
	if err != nil {
		return err
	}
	l, err := h.look(ctx)
	if err != nil {
		return err
	}
	if !f.systemd {
		name, text := path.Join(dir, superviseFile), supervise(h.root, dir)
		if string(l.files[name].data) == text {
			return nil
		}
		return files{h}.Write(ctx, providers.File{Path: name, Data: []byte(text), Perm: 0o700})
	}
	name, text := unitName(h.root, dir), unit(h.root, dir)
	if string(l.files[unitDir+name].data) == text && l.units[name]["UnitFileState"] == "enabled" {
		return nil
	}
	_, err = h.run(ctx, writing(providers.File{Path: unitDir + name, Data: []byte(text), Perm: 0o644})+"systemctl daemon-reload\nsystemctl unmask -q "+quote(name)+"\nsystemctl enable -q "+quote(name))
	h.changed()
	return err
}

// Inspect finds what Prepare made and is not as it was.
func (h *host) Inspect(ctx context.Context, dir string) ([]string, error) {
	f, err := h.known(ctx)
	if err != nil {
		return nil, err
	}
	l, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	var words []string
	abs, node := path.Join(h.root, dir), path.Base(dir)
	agent, runs := l.agents[node]
	runs = runs && agent.isAgent(abs)
	if !f.systemd {
		e, ok := l.files[path.Join(dir, superviseFile)]
		switch {
		case !ok:
			words = append(words, providers.HealthService+"script gone")
		case string(e.data) != supervise(h.root, dir):
			words = append(words, providers.HealthService+"script differs")
		}
		if runs && !l.watchers[node].isSupervisor(abs) {
			words = append(words, providers.HealthUnwatched)
		}
		return words, nil
	}
	name := unitName(h.root, dir)
	e, ok := l.files[unitDir+name]
	state := l.units[name]
	switch {
	case !ok:
		words = append(words, providers.HealthService+"unit gone")
	case string(e.data) != unit(h.root, dir):
		words = append(words, providers.HealthService+"unit differs")
	case state["UnitFileState"] != "enabled":
		words = append(words, providers.HealthService+"unit "+state["UnitFileState"]+", not enabled")
	}
	if runs && state["MainPID"] != strconv.Itoa(agent.pid) {
		words = append(words, providers.HealthUnwatched)
	}
	return words, nil
}

// Release takes the unit away.
func (h *host) Release(ctx context.Context, dir string) error {
	f, err := h.known(ctx)
	if err != nil || !f.systemd {
		return err
	}
	name := unitName(h.root, dir)
	_, err = h.run(ctx, fmt.Sprintf(`[ -e %[2]s ] || exit 0
systemctl disable -q %[1]s
rm -f %[2]s && systemctl daemon-reload || exit 1
systemctl reset-failed %[1]s 2>/dev/null || :`, quote(name), quote(unitDir+name)))
	h.changed()
	return err
}

// Start has systemd or the supervisor start the agent.
func (h *host) Start(ctx context.Context, dir string) error {
	f, err := h.known(ctx)
	if err != nil {
		return err
	}
	abs := path.Join(h.root, dir)
	var b strings.Builder
	fmt.Fprintf(&b, "umask 077\ncd %s || exit 1\nmkdir -p run log || exit 1\n", quote(abs))
	fmt.Fprintf(&b, "%s version >/dev/null || exit 1\n", quote(path.Join(abs, providers.AgentLink)))
	for i := keepLogs; i > 0; i-- {
		older := providers.AgentLog
		if i > 1 {
			older += "." + strconv.Itoa(i-1)
		}
		fmt.Fprintf(&b, "[ ! -s %s ] || mv -f %s %s.%d || exit 1\n", older, older, providers.AgentLog, i)
	}
	if f.systemd {
		name := quote(unitName(h.root, dir))
		fmt.Fprintf(&b, "systemctl reset-failed %[1]s 2>/dev/null\nsystemctl start --no-block %[1]s\n", name)
	} else {
		// One that waits for its next attempt makes place for one that doesn't wait.
		fmt.Fprintf(&b, `p=; [ -f %[3]s ] && read -r p <%[3]s
if [ -n "$p" ] && [ "$(tr '\000' ' ' 2>/dev/null <"/proc/$p/cmdline")" = "sh %[1]s/%[4]s " ]; then
	kill -TERM "$p"
	for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$p" 2>/dev/null || break; sleep 1; done
	kill -KILL "$p" 2>/dev/null # two would both keep an agent running
fi
if command -v setsid >/dev/null; then s=setsid; else s=nohup; fi
%[2]s=%[1]s $s sh %[1]s/%[4]s </dev/null >/dev/null 2>&1 &
`, abs, marker, supervisorPID, superviseFile)
	}
	_, err = h.run(ctx, b.String())
	h.changed()
	if err != nil && f.root && strings.Contains(err.Error(), "ermission denied") {
		err = fmt.Errorf("%w; is the file system of %s mounted noexec? Mount it without, or have nodes elsewhere with the provider's directory", err, h.root)
	}
	return err
}

// Alive finds the agent by its pid file, else among all processes: it may not
// have written one yet.
func (h *host) Alive(ctx context.Context, dir string) (int, error) {
	abs := path.Join(h.root, dir)
	h.looking.Lock()
	var first process
	if h.seen != nil && !h.used {
		h.used = true
		first = h.seen.agents[path.Base(dir)]
	}
	h.looking.Unlock()
	if first.isAgent(abs) {
		return first.pid, nil
	}
	out, err := h.run(ctx, showProcess+fmt.Sprintf("p=; [ ! -f %[1]s ] || read -r p <%[1]s || :\n[ -z \"$p\" ] || show p \"$p\"", quote(path.Join(abs, providers.AgentPIDFile))))
	if err != nil {
		return 0, err
	}
	if said := parseProcesses(out); len(said) > 0 && said[0].isAgent(abs) {
		return said[0].pid, nil
	}
	all, err := h.processes(ctx, dir)
	for _, p := range all {
		if p.isAgent(abs) {
			return p.pid, err
		}
	}
	return 0, err
}

// marked finds processes by whole entries of a file of /proc.
const marked = `if printf 'a\000b' | grep -qzxF b 2>/dev/null; then z=1; else z=; fi
marked() { # FILE, patterns on standard input
	if [ -n "$z" ]; then
		grep -lzxF -f - /proc/[0-9]*/$1 2>/dev/null
		return 0
	fi
	w=$(cat)
	for q in /proc/[0-9]*; do # a grep without -z
		tr '\000' '\n' 2>/dev/null <"$q/$1" | grep -qxF "$w" && echo "$q/$1"
	done
	return 0
}
`

// processes are those that belong to a node.
func (h *host) processes(ctx context.Context, dir string) ([]process, error) {
	abs := path.Join(h.root, dir)
	records, err := h.run(ctx, "cd "+quote(abs)+" 2>/dev/null || exit 0\nfor f in "+strings.Join(recordFiles, " ")+"; do [ ! -f $f ] || { cat $f; echo; }; done")
	if err != nil {
		return nil, err
	}
	wanted := marker + "=" + abs + "\n"
	for d := json.NewDecoder(strings.NewReader(string(records))); ; {
		var r struct {
			Tokens []string `json:"tokens"`
		}
		if d.Decode(&r) != nil {
			break
		}
		for _, t := range r.Tokens {
			if t != "" && !strings.ContainsAny(t, "\n") {
				wanted += token + "=" + t + "\n"
			}
		}
	}
	out, err := h.run(ctx, showProcess+marked+`for p in $(printf %s `+quote(wanted)+` | marked environ; printf '%s\n' `+quote(abs)+` | marked cmdline); do
	p=${p#/proc/}; show p "${p%%/*}"
done`)
	if err != nil {
		return nil, err
	}
	return parseProcesses(out), nil
}

// parseProcesses reads what showProcess has printed.
func parseProcesses(out []byte) (all []process) {
	lines := strings.Split(string(out), "\n")
	for i := 0; i+1 < len(lines); i++ {
		stat, ok := strings.CutPrefix(lines[i], "p ")
		if !ok {
			continue
		}
		i++
		p, runs := parseProcess(stat, lines[i])
		known := func(q process) bool { return q.pid == p.pid }
		if runs && !slices.ContainsFunc(all, known) {
			all = append(all, p)
		}
	}
	return all
}

// Stop ends the agent and makes sure that nothing of the node is left.
func (h *host) Stop(ctx context.Context, dir string, grace time.Duration) error {
	f, err := h.known(ctx)
	if err != nil {
		return err
	}
	defer h.changed()
	abs := path.Join(h.root, dir)
	all, err := h.processes(ctx, dir)
	if err != nil {
		return err
	}
	runs := func(p process) bool { return p.isAgent(abs) || p.isSupervisor(abs) }
	var ask strings.Builder
	if f.systemd { // also where nothing runs: it may be about to start one
		name := quote(unitName(h.root, dir))
		// Also where the unit's file is gone: systemd, which has read it, goes on starting it.
		fmt.Fprintf(&ask, "systemctl stop --no-block %s || [ ! -e %s ] || exit 1\n", name, quote(unitDir+unitName(h.root, dir)))
		fmt.Fprintf(&ask, "m=$(systemctl show -p MainPID %s 2>/dev/null)\n", name)
	}
	supervised := slices.ContainsFunc(all, func(p process) bool { return p.isSupervisor(abs) })
	for _, p := range all {
		if runs(p) {
			if !supervised || p.isSupervisor(abs) {
				fmt.Fprintf(&ask, "[ \"$m\" = MainPID=%[1]d ] || kill -TERM %[1]d 2>/dev/null\n", p.pid)
			}
			fmt.Fprintf(&ask, "kill -CONT %d 2>/dev/null\n", p.pid) // one that was stopped hears it too
		}
	}
	if ask.Len() > 0 {
		if _, err := h.run(ctx, ask.String()+":"); err != nil {
			return err
		}
	}
	gone, err := h.wait(ctx, dir, grace, runs, false)
	if err != nil {
		return err
	}
	if !gone { // supervisors first: they would start it again
		if _, err := h.wait(ctx, dir, killWait, func(p process) bool { return p.isSupervisor(abs) }, true); err != nil {
			return err
		}
		if _, err := h.wait(ctx, dir, killWait, runs, true); err != nil {
			return err
		}
	}
	any := func(process) bool { return true }
	if gone, err = h.wait(ctx, dir, orphanWait, any, false); err != nil || gone {
		return err
	}
	if gone, err = h.wait(ctx, dir, killWait, any, true); err != nil || gone {
		return err
	}
	return errors.New("processes of " + abs + " can't be killed; they wait in the kernel, perhaps for a disk")
}

// wait looks until no process is left that counts, and kills those that do
// where it is told to.
func (h *host) wait(ctx context.Context, dir string, span time.Duration, counts func(process) bool, kill bool) (bool, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(span); ; {
		all, err := h.processes(ctx, dir)
		if err != nil {
			return false, err
		}
		all = slices.DeleteFunc(all, func(p process) bool { return !counts(p) })
		if len(all) == 0 {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		if kill {
			script := ""
			for _, p := range all {
				script += "kill -KILL " + strconv.Itoa(p.pid) + " 2>/dev/null\n"
			}
			if _, err := h.run(ctx, script+":"); err != nil {
				return false, err
			}
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}

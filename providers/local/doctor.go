package local

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/providers"
)

// ProbeName makes host a providers.Prober.
func (h *host) ProbeName() string { return providers.ThisMachine }

// Probe runs a script here, as the nodes would run.
func (h *host) Probe(ctx context.Context, script string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh")
	cmd.Stdin = strings.NewReader(script)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask this machine's shell: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return out, nil
}

// features is what the kernel has for mode = "netns".
func features(context.Context, []providers.Examinee) []providers.Finding {
	var all []providers.Finding
	for _, f := range netlab.Features() {
		finding := providers.Finding{Where: providers.ThisMachine, Check: f.Name, Level: providers.LevelOK, Found: "there"}
		if f.Err != nil {
			finding.Level, finding.Found, finding.Advice = providers.LevelFail, f.Err.Error(), f.Todo
		}
		all = append(all, finding)
	}
	return all
}

package ssh

import "context"

// ProbeName makes host a providers.Prober: host:port, and the way there.
func (h *host) ProbeName() string { return h.conn.String() }

// Probe runs a script there that only reads.
func (h *host) Probe(ctx context.Context, script string) ([]byte, error) { return h.run(ctx, script) }

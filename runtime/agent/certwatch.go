package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// A node has no key to renew its certificate with, so it says in time that an
// apply has to: in the database, for everybody's status and the event log, and
// in its own log once a day. An expired certificate stops nothing: frames don't
// use it, and nodes take each other's whatever its dates (pki.NodesServerConfig).
// Callers of the API over the network are who it turns away; the next apply
// writes another beside the running agent.

const (
	certLook    = time.Hour        // how often the file is looked at
	certAgain   = time.Minute      // at the most, when the database did not take the word
	certWithin  = 10 * time.Second // for one try
	certLogEach = 24 * time.Hour
)

// certWatch tells the database how long the node's certificate lasts.
type certWatch struct {
	log     *slog.Logger
	renewed chan struct{}
	current func() certLife
	// told is what the database knows of it; false: this node is no member (yet).
	told func(context.Context) (*confdb.NodeCert, bool, error)
	tell func(context.Context, confdb.NodeCert) error

	logged time.Time // when its end was last told in the log
	phase  confdb.CertPhase
}

func (n *Node) watchCertificate(ctx context.Context) {
	w := &certWatch{
		log: n.log, renewed: n.cert.renewed,
		current: func() certLife {
			_, life := n.cert.current()
			return life
		},
		told: func(ctx context.Context) (known *confdb.NodeCert, ok bool, err error) {
			err = n.Read(ctx, func(s *confdb.State, _ member.Status) {
				if own := s.Nodes[n.facts.NodeID]; own != nil && own.ServerID == n.facts.ServerID && own.Joined {
					known, ok = own.Cert, true // never changed in place
				}
			})
			return known, ok, err
		},
		tell: func(ctx context.Context, cert confdb.NodeCert) error {
			r, err := n.Submit(ctx, confdb.Command{ID: fmt.Sprintf("cert-%x", random64()), Time: time.Now().UTC(),
				TellCert: &confdb.TellCert{Node: n.facts.NodeID, Cert: cert}})
			if err == nil && r.Code != "" {
				err = errors.New(r.Detail)
			}
			return err
		},
	}
	w.run(ctx)
}

// run looks at the certificate until ctx ends.
func (w *certWatch) run(ctx context.Context) {
	again := time.Second
	for {
		next := certLook
		if w.look(ctx, time.Now()) {
			again = time.Second
		} else {
			next = again
			again = min(2*again, certAgain)
		}
		select {
		case <-time.After(next):
		case <-w.renewed:
		case <-ctx.Done():
			return
		}
	}
}

// look tells what is new; false: not everything could be told.
func (w *certWatch) look(ctx context.Context, now time.Time) bool {
	cert := phaseOf(w.current(), now)
	if cert.Phase == confdb.CertGood {
		w.phase = cert.Phase
	} else if w.phase != cert.Phase || now.Sub(w.logged) >= certLogEach {
		w.logged, w.phase = now, cert.Phase
		text := "this node's certificate ends soon; clusterplan apply renews it"
		if cert.Phase == confdb.CertExpired {
			text = "this node's certificate has expired: groups go on, but its API takes no calls over the network; clusterplan apply renews it (or is this host's clock wrong?)"
		}
		w.log.Warn(text, "until", cert.Until)
	}
	ctx, cancel := context.WithTimeout(ctx, certWithin)
	defer cancel()
	known, ok, err := w.told(ctx)
	if err != nil || !ok {
		return false
	}
	if known != nil && known.Phase == cert.Phase && known.Until.Equal(cert.Until) {
		return true
	}
	if err := w.tell(ctx, cert); err != nil {
		w.log.Debug("the database was not told of the node's certificate", "err", err)
		return false
	}
	return true
}

// phaseOf is what there is to say of a certificate.
func phaseOf(life certLife, now time.Time) confdb.NodeCert {
	cert := confdb.NodeCert{Until: life.until.UTC()}
	switch {
	case !now.Before(life.until):
		cert.Phase = confdb.CertExpired
	case pki.RenewNeeded(life.from, life.until, now):
		cert.Phase = confdb.CertEnding
	}
	return cert
}

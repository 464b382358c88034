package agent

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
)

// certLife is from when to when a certificate is valid.
type certLife struct{ from, until time.Time }

// certificate is the node's own, read again when its file has changed: apply
// renews it in place while the agent runs.
type certificate struct {
	dir  string
	conf fileConfig
	log  *slog.Logger

	mu      sync.Mutex
	cert    *tls.Certificate
	life    certLife
	changed time.Time // the file's, as it was read

	renewed chan struct{} // has one entry once another was read
}

func newCertificate(f *files, log *slog.Logger) *certificate {
	c := &certificate{dir: f.dir, conf: f.conf, log: log, cert: &f.cert, life: certLife{f.notBefore, f.notAfter}, renewed: make(chan struct{}, 1)}
	if info, err := os.Stat(filepath.Join(f.dir, certFile)); err == nil {
		c.changed = info.ModTime()
	}
	return c
}

// current looks at the file and returns the certificate in use. A new one that
// is no good is told once and left alone: the old one may still hold.
func (c *certificate) current() (*tls.Certificate, certLife) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := filepath.Join(c.dir, certFile)
	info, err := os.Stat(path)
	if err != nil || info.ModTime().Equal(c.changed) {
		return c.cert, c.life
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c.cert, c.life
	}
	peer, err := pki.ParseCert(text)
	if err == nil {
		if problems := certProblems(path, peer, c.conf); len(problems) > 0 {
			err = problems[0]
		} else if time.Now().After(peer.NotAfter) {
			err = fmt.Errorf("%s has expired at %s; clusterplan apply renews it", path, peer.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(path, filepath.Join(c.dir, keyFile))
	}
	c.changed = info.ModTime()
	if err != nil {
		c.log.Error("the node's new certificate is no good; the old one stays in use", "err", err)
		return c.cert, c.life
	}
	c.cert, c.life = &cert, certLife{peer.NotBefore, peer.NotAfter}
	select {
	case c.renewed <- struct{}{}:
	default:
	}
	c.log.Info("the node's certificate was renewed", "until", peer.NotAfter)
	return c.cert, c.life
}

// serve and present put the certificate in use into a server's and a client's
// configuration.
func (c *certificate) serve(conf *tls.Config) *tls.Config {
	conf.Certificates = nil
	conf.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, _ := c.current()
		return cert, nil
	}
	return conf
}

func (c *certificate) present(conf *tls.Config) *tls.Config {
	conf.Certificates = nil
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, _ := c.current()
		return cert, nil
	}
	return conf
}

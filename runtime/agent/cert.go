package agent

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
)

// certificate is the node's own, read again when its file has changed: apply
// renews it in place while the agent runs.
type certificate struct {
	dir  string
	conf fileConfig
	log  *slog.Logger

	mu       sync.Mutex
	cert     *tls.Certificate
	notAfter time.Time
	changed  time.Time // the file's, as it was read
}

func newCertificate(f *files, log *slog.Logger) *certificate {
	c := &certificate{dir: f.dir, conf: f.conf, log: log, cert: &f.cert, notAfter: f.notAfter}
	if info, err := os.Stat(filepath.Join(f.dir, certFile)); err == nil {
		c.changed = info.ModTime()
	}
	return c
}

// current looks at the file and returns the certificate in use. A new one that
// is no good is told once and left alone: the old one may still hold.
func (c *certificate) current() (*tls.Certificate, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := filepath.Join(c.dir, certFile)
	info, err := os.Stat(path)
	if err != nil || info.ModTime().Equal(c.changed) {
		return c.cert, c.notAfter
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c.cert, c.notAfter
	}
	peer, err := pki.ParseCert(text)
	if err == nil {
		if problems := certProblems(path, peer, c.conf, time.Now()); len(problems) > 0 {
			err = problems[0]
		}
	}
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(path, filepath.Join(c.dir, keyFile))
	}
	c.changed = info.ModTime()
	if err != nil {
		c.log.Error("the node's new certificate is no good; the old one stays in use", "err", err)
		return c.cert, c.notAfter
	}
	c.cert, c.notAfter = &cert, peer.NotAfter
	c.log.Info("the node's certificate was renewed", "until", peer.NotAfter)
	return c.cert, c.notAfter
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

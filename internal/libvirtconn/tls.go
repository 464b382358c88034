package libvirtconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// withTexts dials with the certificates that the configuration has as texts.
func withTexts(cfg Config, host, port string) (func() (net.Conn, error), error) {
	pair, err := tls.X509KeyPair([]byte(cfg.Certificate), []byte(cfg.PrivateKey))
	if err != nil {
		return nil, fmt.Errorf("the certificate and its private key: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(cfg.CA)) {
		return nil, errors.New("the authority's certificate is none in PEM")
	}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: cfg.ConnectTimeout}, Config: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}}
	return func() (net.Conn, error) {
		conn, err := d.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return nil, err
		}
		// libvirtd's first byte says whether it takes the certificate: 1.
		var said [1]byte
		err = conn.SetReadDeadline(time.Now().Add(cfg.ConnectTimeout))
		if err == nil {
			_, err = conn.Read(said[:])
		}
		if err == nil {
			err = conn.SetReadDeadline(time.Time{})
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		if said[0] != 1 {
			conn.Close()
			return nil, errors.New("libvirtd does not take the certificate that it was shown")
		}
		return conn, nil
	}, nil
}

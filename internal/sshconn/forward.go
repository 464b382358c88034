package sshconn

import (
	"context"
	"errors"
	"net"

	"golang.org/x/crypto/ssh"
)

// Dial connects from the host to an address as the host sees it: "tcp" to
// host:port, "unix" to a socket's path (where sshd runs as a user who may open
// it). The connection lives as long as the SSH connection; it has no deadlines.
func (c *Conn) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.forward(ctx, network, address)
}

func (c *Conn) forward(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	redial := true
	refused, err := c.channel(ctx, &redial, "connect to "+address+" from there", func(l *live) (err error) {
		ctx, cancel := l.while(ctx)
		defer cancel()
		conn, err = l.client.DialContext(ctx, network, address)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case refused == nil:
		return conn, nil
	case refused.Reason == ssh.Prohibited || refused.Reason == ssh.UnknownChannelType:
		return nil, c.fail(ErrForwarding, nil, "Set AllowTcpForwarding yes (or local) in its sshd_config, and look for PermitOpen, DisableForwarding and restrict in authorized_keys",
			"the host forwards no connection to %s", address)
	}
	todo := ""
	if network == "unix" { // the server tells no reasons
		todo = "Check that the socket is there and may be opened, and AllowStreamLocalForwarding in its sshd_config"
	}
	return nil, c.fail(nil, errors.New(refused.Message), todo, "from there %s can't be reached", address)
}

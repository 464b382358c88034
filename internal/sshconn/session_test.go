package sshconn

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

// What is opened when the connection has just ended gets no answer any more, and no
// error of the SSH client's either; nobody waits for it.
func TestOpenedAtTheEnd(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server := &ssh.ServerConfig{NoClientAuth: true}
	server.AddHostKey(signer)
	asked := make(chan ssh.NewChannel)
	go func() {
		_, channels, requests, err := ssh.NewServerConn(far, server)
		if err != nil {
			t.Error(err)
			close(asked)
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels { // none of them is answered
			asked <- c
		}
	}()
	conn, channels, requests, err := ssh.NewClientConn(near, "", &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	l := &live{client: ssh.NewClient(conn, channels, requests), dead: make(chan struct{})}
	defer l.client.Close()
	ended := make(chan error)
	go func() {
		_, err := openSession(t.Context(), l)
		ended <- err
	}()
	<-asked
	close(l.dead)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

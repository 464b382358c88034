package gitmodule

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/clusterplan/clusterplan/internal/gittest"
)

// TestSSH gets modules from git behind OpenSSH's server: by a key file, by an agent,
// and what a host that is not known, or is another, a wrong key and a repository that
// is not there are told. A host that never answers is waited for until somebody gives up.
func TestSSH(t *testing.T) {
	sshd := gittest.ServeSSH(t)
	o := newOrigin(t)
	first := o.commit("main", map[string]string{"web/x": "first"})
	o.tag("v1", first)
	second := o.commit("main", map[string]string{"web/x": "second"}, first)
	url := "git::" + sshd.URL(o.dir)

	gittest.Home(t, sshd.Known, sshd.Key)
	r := newRoot(t)
	got, _ := r.must(url+"//web?ref=v1", url+"//web?ref="+second, url)
	if got[0].Commit != first || got[1].Commit != second || got[2].Commit != second || r.read(got[0], "web/x") != "first" || r.read(got[2], "web/x") != "second" {
		t.Errorf("%+v", got)
	}
	newRoot(t).refused("there is no repository", url+"x")

	gittest.Home(t, sshd.Known, "")
	newRoot(t).refused("there is no SSH key", url)
	text, err := os.ReadFile(sshd.Key)
	o.check(err)
	key, err := ssh.ParseRawPrivateKey(text)
	o.check(err)
	ring := agent.NewKeyring()
	o.check(ring.Add(agent.AddedKey{PrivateKey: key}))
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	o.check(err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, c)
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", socket)
	newRoot(t).must(url)
	o.check(ring.RemoveAll())
	newRoot(t).refused("refuses access", url)

	gittest.Home(t, "", sshd.Key)
	newRoot(t).refused("known_hosts", url)
	other := gittest.ServeSSH(t)
	host, _, _ := strings.Cut(sshd.Known, " ")
	_, otherKey, _ := strings.Cut(other.Known, " ")
	gittest.Home(t, host+" "+otherKey, sshd.Key)
	newRoot(t).refused("is not the one that ~/.ssh/known_hosts knows", url)

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	o.check(err)
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := silent.Accept(); err == nil {
			defer c.Close()
			cancel()
			<-t.Context().Done()
		}
	}()
	if _, _, err := newRoot(t).init(ctx, nil, "git::ssh://root@"+silent.Addr().String()+"/m.git"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func (o *origin) check(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

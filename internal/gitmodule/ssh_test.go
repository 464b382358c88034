package gitmodule

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

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

// A host that tells its refs and then answers no more, be it that it takes the next
// connection and says nothing or that it takes none, is waited for until somebody
// gives up.
func TestSSHGivenUp(t *testing.T) {
	sshd := gittest.ServeSSH(t)
	o := newOrigin(t)
	o.commit("main", map[string]string{"web/x": "first"})
	for _, takes := range []bool{true, false} {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		o.check(err)
		o.check(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		o.check(syscall.Listen(fd, 0))
		file := os.NewFile(uintptr(fd), "listener")
		l, err := net.FileListener(file)
		o.check(err)
		file.Close()
		t.Cleanup(func() { l.Close() })
		gittest.Home(t, knownhosts.Line([]string{l.Addr().String()}, hostKey(t, sshd.Known)), sshd.Key)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			first, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", sshd.Address())
			if err != nil {
				return
			}
			go func() { io.Copy(to, first); to.Close() }()
			io.Copy(first, to)
			first.Close()
			if takes {
				if c, err := l.Accept(); err == nil {
					defer c.Close()
					cancel()
					<-t.Context().Done()
				}
				return
			}
			for range 8 { // whoever comes when its queue is full is not answered at all
				c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond)
				if err != nil {
					break
				}
				defer c.Close()
			}
			cancel()
			<-t.Context().Done()
		}()
		ended := make(chan error, 1)
		go func() {
			_, _, err := newRoot(t).init(ctx, nil, "git::ssh://root@"+l.Addr().String()+o.dir)
			ended <- err
		}()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("takes the next %v: %v", takes, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("takes the next %v: it does not end", takes)
		}
	}
}

// hostKey is the key of a line of known_hosts.
func hostKey(t *testing.T, line string) ssh.PublicKey {
	_, _, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (o *origin) check(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

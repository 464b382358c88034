// Package gitremote is how a repository behind a network is told who asks, over https
// and over ssh, and what to do about what its transports say: for modules from git
// and states in git. No git program is run, and no configuration that runs anything
// is read.
package gitremote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// Auth is what a repository is told: ~/.netrc's password for the host over https, a
// key over ssh. keyFile is a private key's; "": the agent's keys, without an agent
// those of ~/.ssh. nil: nobody asks. address has no password in it.
func Auth(address, keyFile string) (transport.AuthMethod, error) {
	if u, err := url.Parse(address); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		if u.Scheme == "http" {
			return nil, nil // a password is not for everybody on the way
		}
		login, password, err := netrc(u.Hostname(), u.User.Username())
		if err != nil || password == "" {
			return nil, err
		}
		return &http.BasicAuth{Username: login, Password: password}, nil
	}
	end, err := transport.NewEndpoint(address)
	if err != nil {
		return nil, fmt.Errorf("%q is no URL of a repository: %w", address, err)
	}
	user := end.User
	if user == "" {
		user = "git"
	}
	if keyFile != "" {
		auth, err := ssh.NewPublicKeysFromFile(user, keyFile, "")
		if err != nil {
			return nil, fmt.Errorf("the SSH key %s can't be used: %w. Name a private key without a passphrase; one that has one is an SSH agent's to hold (ssh-add)", keyFile, err)
		}
		return auth, nil
	}
	if os.Getenv("SSH_AUTH_SOCK") != "" {
		auth, err := ssh.NewSSHAgentAuth(user)
		if err != nil {
			return nil, fmt.Errorf("the SSH agent that $SSH_AUTH_SOCK names doesn't answer: %w. Start it, or unset the variable, and the keys of ~/.ssh are used", err)
		}
		return auth, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("look for an SSH key: %w", err)
	}
	var why error
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		auth, err := ssh.NewPublicKeysFromFile(user, filepath.Join(home, ".ssh", name), "")
		if err == nil {
			return auth, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			why = fmt.Errorf(" (%s: %w)", name, err)
		}
	}
	text := ""
	if why != nil {
		text = why.Error()
	}
	return nil, fmt.Errorf("there is no SSH key to read %s with%s. Start an SSH agent that has one (ssh-agent, ssh-add), or put one without a passphrase at ~/.ssh/id_ed25519", address, text)
}

// Explain says what to do about an error of a transport. credentials is what to see
// to where a password is refused; "": ~/.netrc. then is what to do once it is mended.
func Explain(ctx context.Context, address, credentials string, err error, then string) error {
	switch {
	case !strings.HasPrefix(address, "http"):
		credentials = "Check that your key may use it: ssh-add -l lists the agent's, without an agent it is ~/.ssh/id_ed25519, id_ecdsa or id_rsa, without a passphrase"
	case credentials != "":
	case strings.HasPrefix(address, "http:"):
		credentials = "Over http nobody is told a password: use https"
	default:
		credentials = "Check what ~/.netrc (or the file that $NETRC names) says for this host: machine HOST login NAME password TOKEN"
	}
	text := err.Error()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("there is no repository %s, or it is not for you to see. Check the URL; if that is right: %s", address, lower(credentials))
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return fmt.Errorf("the repository %s has no commit yet. Push one, or name another repository", address)
	case Refused(err) && strings.Contains(text, "knownhosts:"), Refused(err) && strings.Contains(text, "known_hosts"):
		return fmt.Errorf("the host of %s is not the one that ~/.ssh/known_hosts knows: %s. If it is the right one, add its key there: ssh-keyscan HOST, compared with what its owner publishes", address, Line(text))
	case Refused(err):
		return fmt.Errorf("%s refuses access: %s. %s", address, Line(text), credentials)
	}
	return fmt.Errorf("%s can't be asked: %s. Check the URL and the network; then %s", address, Line(text), then)
}

// Until is what ask returns, or ctx's end: go-git's client of SSH hears of that only
// once the host has answered.
func Until[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	type answer struct {
		it  T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		it, err := ask()
		done <- answer{it, err}
	}()
	select {
	case a := <-done:
		return a.it, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// Refused tells whether err is a repository's or host's last word: another try
// fares no better.
func Refused(err error) bool {
	text := err.Error()
	return errors.Is(err, transport.ErrRepositoryNotFound) || errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) ||
		strings.Contains(text, "unable to authenticate") || strings.Contains(text, "invalid auth method") ||
		strings.Contains(text, "knownhosts:") || strings.Contains(text, "known_hosts")
}

func lower(text string) string { return strings.ToLower(text[:1]) + text[1:] }

// Line is an error's text as a part of a sentence.
func Line(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if text = strings.Join(strings.Fields(text), " "); len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return strings.TrimRight(text, ".: ")
}

// netrc is the login and password for a host, and for a login if one is given.
func netrc(host, login string) (string, string, error) {
	name := os.Getenv("NETRC")
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", "", nil
		}
		name = filepath.Join(home, ".netrc")
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read the passwords for hosts: %w", err)
	}
	defer f.Close()
	var words []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text := strings.TrimSpace(lines.Text())
		if !strings.HasPrefix(text, "#") {
			words = append(words, strings.Fields(text)...)
		}
	}
	type entry struct{ host, login, password string }
	var all []entry
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "default":
			all = append(all, entry{})
			continue
		case "machine":
			all = append(all, entry{host: value})
		case "login":
			if len(all) > 0 {
				all[len(all)-1].login = value
			}
		case "password":
			if len(all) > 0 {
				all[len(all)-1].password = value
			}
		default:
			continue
		}
		i++
	}
	for _, e := range all {
		if e.host == host && (login == "" || login == e.login) { // "default" would give one host's password to any
			return e.login, e.password, nil
		}
	}
	return "", "", nil
}

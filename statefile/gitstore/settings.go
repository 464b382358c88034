package gitstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// Settings of a backend.
type Settings struct {
	Repository string // URL, without a password; over http without a user too
	Ref        string // by its full name
	Username   string // for Basic authentication
	Password   string
	KeyFile    string // of SSH; "": the agent's keys, or those of ~/.ssh
	CA         string // PEM; "": the system's
}

// EnvPrefix stands before a setting's name, in capitals, in the environment.
const EnvPrefix = "CLUSTERPLAN_GIT_"

// RefPrefix stands before a ref that is given without refs/.
const RefPrefix = "refs/clusterplan/state/"

// Parse takes the settings of a definition, and from the environment what that leaves
// out. own is the URL of a remote of the repository that the definition lies in.
func Parse(given map[string]string, getenv func(string) string, own func(remote string) (string, error)) (Settings, error) {
	text := func(name string) string {
		if v := given[name]; v != "" {
			return v
		}
		return getenv(EnvPrefix + strings.ToUpper(name))
	}
	s := Settings{Ref: text("ref"), Username: text("username"), Password: getenv(EnvPrefix + "PASSWORD"), KeyFile: text("ssh_key"), CA: text("client_ca_certificate_pem")}
	if given["password"] != "" {
		return Settings{}, errors.New("a password does not stand in a definition; set " + EnvPrefix + "PASSWORD")
	}
	if s.Ref == "" {
		return Settings{}, errors.New(`it has no ref; give one that no other definition of the repository has, as ref = "shop", or set ` + EnvPrefix + "REF")
	}
	if !strings.HasPrefix(s.Ref, "refs/") {
		s.Ref = RefPrefix + s.Ref
	}
	address := text("repository")
	if address == "" {
		name := text("remote")
		if name == "" {
			name = "origin"
		}
		var err error
		if address, err = own(name); err != nil {
			return Settings{}, fmt.Errorf("%w; name a repository in the backend block, or set %sREPOSITORY", err, EnvPrefix)
		}
	} else if given["repository"] != "" {
		if u, err := url.Parse(address); err == nil && u.User != nil {
			if _, secret := u.User.Password(); secret {
				return Settings{}, errors.New("there is a password in the URL of the repository, which everybody would read in the definition; take it out, and set " + EnvPrefix + "PASSWORD")
			}
		}
	}
	if err := s.at(address); err != nil {
		return Settings{}, err
	}
	return s, s.check()
}

// ParseEnvironment is Parse with this process's environment.
func ParseEnvironment(given map[string]string, own func(string) (string, error)) (Settings, error) {
	return Parse(given, os.Getenv, own)
}

var scp = regexp.MustCompile(`^(?:[^/@:\s]+@)?[^/@:\s]+:[^:\s]+$`)

// at takes a URL apart: who asks is not a part of where the state lies.
func (s *Settings) at(address string) error {
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return errors.New("the repository's URL is none; write https://host/path.git") // not its text: it may hold a password
		}
		password, _ := u.User.Password()
		if u.Scheme == "http" || u.Scheme == "https" {
			if s.Username == "" {
				s.Username = u.User.Username()
			}
			if s.Password == "" {
				s.Password = password
			}
			u.User = nil
		} else if password != "" {
			return errors.New("there is a password in the repository's URL; over ssh a key is used")
		}
		u.Path = strings.TrimRight(u.Path, "/")
		address = u.String()
	}
	s.Repository = address
	return nil
}

func (s *Settings) check() error {
	u, err := url.Parse(s.Repository)
	switch {
	case strings.Contains(s.Repository, "://"):
		switch {
		case err != nil:
			return errors.New("the repository's URL is none; write https://host/path.git")
		case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "ssh":
			return fmt.Errorf("states are pushed over https, ssh and http, not over %s; a state on this machine is backend \"local\"'s", u.Scheme)
		case u.Host == "" || strings.Trim(u.Path, "/") == "" || u.RawQuery != "" || u.Fragment != "":
			return errors.New("the repository's URL names no repository of a host; write https://host/path.git")
		}
	case path.IsAbs(s.Repository), !scp.MatchString(s.Repository):
		return errors.New("the repository is no URL of a host, as https://host/path.git or git@host:path.git; a state on this machine is backend \"local\"'s")
	}
	if err := plumbing.ReferenceName(s.Ref).Validate(); err != nil || strings.ContainsFunc(s.Ref, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || strings.Count(s.Ref, "/") < 2 {
		return fmt.Errorf("ref %q is no name of a ref; write ref = \"shop\", for %sshop, or all of it", s.Ref, RefPrefix)
	}
	return nil
}

// Address is where the state lies, without who asks.
func (s *Settings) Address() string { return s.Repository + " " + s.Ref }

// Shown is the address for people.
func (s *Settings) Shown() string { return s.Ref + " of " + s.Repository }

// client is the transport.
func (s *Settings) client(given *http.Client) (transport.Transport, error) {
	if !strings.HasPrefix(s.Repository, "http") {
		return gitssh.NewClient(nil), nil
	}
	if given == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = 2 * time.Minute // a push is answered when it is done
		if s.CA != "" {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM([]byte(s.CA)) {
				return nil, errors.New("client_ca_certificate_pem holds no certificate; it is the text of a PEM file")
			}
			t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		given = &http.Client{Transport: t}
	}
	return githttp.NewClient(given), nil
}

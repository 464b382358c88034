package sshconn

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kevinburke/ssh_config"
)

const maxJumps = 8

// configFiles are files of OpenSSH's client, each read once.
type configFiles struct {
	mu   sync.Mutex
	read map[string]*ssh_config.Config
}

func (f *configFiles) load(path string, mustBe bool) (*ssh_config.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.read[path]; ok {
		return c, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !mustBe {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the SSH client's configuration: %w", err)
	}
	c, err := ssh_config.Decode(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s can't be understood: %w. Name another file with ssh_config_file, or \"none\"", path, err)
	}
	if f.read == nil {
		f.read = map[string]*ssh_config.Config{}
	}
	f.read[path] = c
	return c, nil
}

// settings are what the files say of one host.
type settings struct {
	files []*ssh_config.Config
	alias string
	err   error
}

// get is the first value, as OpenSSH takes it.
func (s *settings) get(key string) string {
	for _, f := range s.files {
		if v, err := f.Get(s.alias, key); err != nil {
			s.err = errors.Join(s.err, err)
		} else if v != "" {
			return v
		}
	}
	return ""
}

func (s *settings) all(key string) []string {
	var values []string
	for _, f := range s.files {
		v, err := f.GetAll(s.alias, key)
		s.err = errors.Join(s.err, err)
		values = append(values, v...)
	}
	return values
}

func (s *settings) number(key string) int {
	v := s.get(key)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		s.err = errors.Join(s.err, fmt.Errorf("%s %q in the SSH client's configuration of %s is no number", key, v, s.alias))
	}
	return n
}

// homeDir is what ~ stands for: $HOME, as in the shell and in all else that a
// definition names, so that the two halves of a key are looked for in one place.
func homeDir() (string, error) {
	if home, err := os.UserHomeDir(); err == nil {
		return home, nil
	}
	me, err := user.Current()
	if err != nil {
		return "", err
	}
	return me.HomeDir, nil
}

func (p *Pool) settings(cfg Config) (*settings, error) {
	s := &settings{alias: cfg.Host}
	if cfg.SSHConfigFile == "none" {
		return s, nil
	}
	home, err := homeDir()
	if err != nil {
		return nil, err
	}
	paths, mustBe := []string{filepath.Join(home, ".ssh", "config"), "/etc/ssh/ssh_config"}, false
	if cfg.SSHConfigFile != "" {
		paths, mustBe = []string{expandHome(cfg.SSHConfigFile, home)}, true
	}
	for _, path := range paths {
		f, err := p.config.load(path, mustBe)
		if err != nil {
			return nil, err
		}
		if f != nil {
			s.files = append(s.files, f)
		}
	}
	return s, nil
}

// resolve works out all settings of a host and of those on the way to it.
func (p *Pool) resolve(cfg Config, depth int) (*target, error) {
	if depth > maxJumps {
		return nil, fmt.Errorf("the way to %s has more than %d jump hosts: does ProxyJump lead in a circle?", cfg.Host, maxJumps)
	}
	if cfg.Host == "" || strings.ContainsAny(cfg.Host, " \t\r\n\x00") {
		return nil, fmt.Errorf("%q is no host's name or address", cfg.Host)
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("%s: %d is no port", cfg.Host, cfg.Port)
	}
	s, err := p.settings(cfg)
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	home, err := homeDir()
	if err != nil {
		return nil, err
	}
	t := &target{alias: cfg.Host, host: cfg.Host, hostKey: strings.TrimSpace(cfg.HostKey), acceptNew: cfg.AcceptNew, sudo: cfg.Sudo}
	if name := s.get("HostName"); name != "" {
		t.host = expand(name, map[byte]string{'h': cfg.Host})
	}
	t.host = strings.ToLower(strings.Trim(t.host, "[]"))
	t.port = cmp.Or(cfg.Port, s.number("Port"), 22)
	t.user = cmp.Or(cfg.User, s.get("User"), me.Username)
	tokens := map[byte]string{'h': t.host, 'n': cfg.Host, 'p': strconv.Itoa(t.port), 'r': t.user,
		'u': me.Username, 'd': me.HomeDir, 'i': me.Uid, 'k': cmp.Or(s.get("HostKeyAlias"), cfg.Host)}
	file := func(path string) string { return expandHome(expand(path, tokens), home) }
	files := func(paths []string) string {
		for i := range paths {
			paths[i] = file(paths[i])
		}
		return strings.Join(paths, "\n")
	}

	if t.hostKey != "" {
		if _, err := parseHostKey(t.hostKey); err != nil {
			return nil, fmt.Errorf("%s: host_key %w", cfg.Host, err)
		}
	}
	t.hostKeyAlias = s.get("HostKeyAlias")
	t.hashNew = strings.EqualFold(s.get("HashKnownHosts"), "yes")
	if cfg.KnownHostsFile != "" {
		t.userKnown = file(cfg.KnownHostsFile)
	} else {
		t.userKnown = files(strings.Fields(cmp.Or(s.get("UserKnownHostsFile"), "~/.ssh/known_hosts ~/.ssh/known_hosts2")))
		t.globalKnown = files(strings.Fields(cmp.Or(s.get("GlobalKnownHostsFile"), "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")))
	}

	if cfg.PrivateKeyFile != "" {
		t.keyFile = file(cfg.PrivateKeyFile)
	}
	if cfg.CertificateFile != "" {
		t.certFile = file(cfg.CertificateFile)
	}
	identities := s.all("IdentityFile")
	if len(identities) == 0 && t.keyFile == "" {
		identities = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	for _, id := range identities {
		if strings.EqualFold(id, "none") {
			identities = nil
			break
		}
	}
	t.identities = files(identities)
	t.certificates = files(s.all("CertificateFile"))
	t.identitiesOnly = strings.EqualFold(s.get("IdentitiesOnly"), "yes")
	t.agent = cmp.Or(cfg.AgentSocket, s.get("IdentityAgent"), "SSH_AUTH_SOCK")
	switch {
	case t.agent == "SSH_AUTH_SOCK":
		t.agent = os.Getenv("SSH_AUTH_SOCK")
	case t.agent == "none":
		t.agent = ""
	case strings.HasPrefix(t.agent, "$"):
		t.agent = os.Getenv(strings.Trim(t.agent[1:], "{}"))
	default:
		t.agent = file(t.agent)
	}

	if cfg.PrivateKey != "" {
		t.key, t.keyFile, t.identities, t.certificates, t.agent = cfg.PrivateKey, "", "", "", ""
	}

	t.connectTimeout = cmp.Or(cfg.ConnectTimeout, time.Duration(s.number("ConnectTimeout"))*time.Second, 10*time.Second)
	t.retryFor = cmp.Or(cfg.RetryFor, 5*time.Second)
	t.keepAlive = cmp.Or(cfg.KeepAlive, time.Duration(s.number("ServerAliveInterval"))*time.Second, 5*time.Second)

	if command := s.get("ProxyCommand"); command != "" && command != "none" && cfg.Jumps == nil {
		return nil, fmt.Errorf("%s: the SSH client's configuration has ProxyCommand, which is not carried out here. Use ProxyJump, or name jump hosts in the definition", cfg.Host)
	}
	jumps := cfg.Jumps
	if jumps == nil {
		if way := s.get("ProxyJump"); way != "" && !strings.EqualFold(way, "none") {
			for _, j := range strings.Split(way, ",") {
				jump, err := ParseJump(strings.TrimSpace(j))
				if err != nil {
					return nil, fmt.Errorf("%s: ProxyJump: %w", cfg.Host, err)
				}
				jumps = append(jumps, jump)
			}
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	if n := len(jumps); n > 0 {
		last := jumps[n-1]
		before := jumps[:n-1]
		if len(before) == 0 {
			before = nil // its own ProxyJump, if there is one
		}
		t.via, err = p.resolve(Config{Host: last.Host, Port: last.Port, User: last.User, HostKey: last.HostKey, Jumps: before,
			KnownHostsFile: cfg.KnownHostsFile, AcceptNew: cfg.AcceptNew, PrivateKey: cfg.PrivateKey, PrivateKeyFile: cfg.PrivateKeyFile, CertificateFile: cfg.CertificateFile,
			AgentSocket: cfg.AgentSocket, SSHConfigFile: cfg.SSHConfigFile,
			ConnectTimeout: cfg.ConnectTimeout, RetryFor: cfg.RetryFor, KeepAlive: cfg.KeepAlive}, depth+1)
		if err != nil && depth == 0 {
			err = fmt.Errorf("on the way to %s: %w", cfg.Host, err)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// ParseJump reads [user@]host[:port], also as ssh://.
func ParseJump(text string) (Jump, error) {
	var j Jump
	rest := strings.TrimSuffix(strings.TrimPrefix(text, "ssh://"), "/")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		j.User, rest = rest[:at], rest[at+1:]
		if j.User == "" {
			return j, fmt.Errorf("%q is no [user@]host[:port]", text)
		}
	}
	port := ""
	switch {
	case strings.HasPrefix(rest, "["):
		end := strings.IndexByte(rest, ']')
		if end < 0 || len(rest) > end+1 && rest[end+1] != ':' {
			return j, fmt.Errorf("%q is no [user@]host[:port]", text)
		}
		j.Host, port = rest[1:end], strings.TrimPrefix(rest[end+1:], ":")
		if len(rest) == end+2 {
			port = "?"
		}
	case strings.Count(rest, ":") == 1:
		j.Host, port, _ = strings.Cut(rest, ":")
		port = cmp.Or(port, "?")
	default:
		j.Host = rest
	}
	if j.Host == "" || strings.ContainsAny(j.Host, " \t\r\n\x00[]/@") {
		return j, fmt.Errorf("%q is no [user@]host[:port]", text)
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return j, fmt.Errorf("%q is no [user@]host[:port]: the port is wrong", text)
		}
		j.Port = int(n)
	}
	return j, nil
}

// expand replaces OpenSSH's % tokens; unknown ones stay.
func expand(s string, tokens map[byte]string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if v, ok := tokens[s[i]]; ok {
			b.WriteString(v)
		} else if s[i] == '%' {
			b.WriteByte('%')
		} else {
			b.WriteString(s[i-1 : i+1])
		}
	}
	return b.String()
}

func expandHome(path, home string) string {
	if path == "~" {
		return home
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(home, rest)
	}
	return path
}

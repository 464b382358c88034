package sshconn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"

	"github.com/clusterplan/clusterplan/internal/shell"
)

// wantedKey is a host key that the caller gave: a key or a fingerprint.
type wantedKey struct {
	key         ssh.PublicKey
	fingerprint string
}

func parseHostKey(text string) (wantedKey, error) {
	if strings.HasPrefix(text, "SHA256:") {
		if len(strings.TrimRight(text, "=")) != len("SHA256:")+43 {
			return wantedKey{}, fmt.Errorf("%q is no fingerprint: SHA256: and 43 characters, as ssh-keygen -lf prints it", text)
		}
		return wantedKey{fingerprint: strings.TrimRight(text, "=")}, nil
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return wantedKey{}, fmt.Errorf("%.60q is neither a public key (\"ssh-ed25519 AAAA...\") nor a fingerprint (\"SHA256:...\")", text)
	}
	return wantedKey{key: key}, nil
}

func (w wantedKey) is(key ssh.PublicKey) bool {
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	if w.key != nil {
		return bytes.Equal(w.key.Marshal(), key.Marshal())
	}
	return w.fingerprint == ssh.FingerprintSHA256(key)
}

// families are host key algorithms by kind of key, the preferred first. A host
// shows one key, of the first kind that both sides have: to find the one of a
// fingerprint, each kind is asked for.
var families = [][]string{
	{ssh.KeyAlgoED25519},
	{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521},
	{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

func algorithmsOf(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return families[2]
	}
	return []string{key.Type()}
}

// knownHosts serialises what is written to known_hosts files.
type knownHosts struct{ mu sync.Mutex }

// hostKeyCheck is one connection's.
type hostKeyCheck struct {
	c     *Conn
	want  wantedKey
	db    *knownhosts.HostKeyDB
	files []string
	seen  ssh.PublicKey // what the host showed
	err   error         // why it isn't trusted
}

func (c *Conn) hostKeyCheck() (*hostKeyCheck, error) {
	h := &hostKeyCheck{c: c}
	if c.t.hostKey != "" {
		var err error
		h.want, err = parseHostKey(c.t.hostKey)
		return h, err
	}
	c.pool.hosts.mu.Lock()
	defer c.pool.hosts.mu.Unlock()
	return h, h.read()
}

// read reads the known_hosts files as they are now.
func (h *hostKeyCheck) read() error {
	h.files = nil
	for _, path := range strings.Split(h.c.t.userKnown+"\n"+h.c.t.globalKnown, "\n") {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		h.files = append(h.files, path)
	}
	db, err := readKnownHosts(h.files)
	if err != nil {
		return h.c.fail(ErrHostKey, err, "", "the known hosts can't be read")
	}
	h.db = db
	return nil
}

// readKnownHosts reads files with lines that can't be understood left out, as
// OpenSSH does: one key of a kind that is too new would else lock everybody out.
func readKnownHosts(files []string) (*knownhosts.HostKeyDB, error) {
	db, err := knownhosts.NewDB(files...)
	if err == nil {
		return db, nil
	}
	var clean []string
	tmp, err := os.MkdirTemp("", "clusterplan-known-hosts-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		lines := bytes.Split(text, []byte("\n"))
		for i, line := range lines {
			// A marker that isn't understood may be a revocation: such a line keeps
			// everything shut, which the reader below says.
			if _, _, _, _, _, err := ssh.ParseKnownHosts(line); err != nil && !bytes.HasPrefix(bytes.TrimSpace(line), []byte("@")) {
				lines[i] = nil
			}
		}
		// The path within keeps the file's name, and the number of lines is the
		// same: errors name the line of the file that it was.
		copied := filepath.Join(tmp, path)
		if err := os.MkdirAll(filepath.Dir(copied), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(copied, bytes.Join(lines, []byte("\n")), 0o600); err != nil {
			return nil, err
		}
		clean = append(clean, copied)
	}
	if db, err = knownhosts.NewDB(clean...); err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), tmp, ""))
	}
	return db, nil
}

// address is what known_hosts has the host under.
func (h *hostKeyCheck) address() string {
	if h.c.t.hostKeyAlias != "" {
		return net.JoinHostPort(h.c.t.hostKeyAlias, "22")
	}
	return h.c.t.addr()
}

// algorithms are sets to try one after the other.
func (h *hostKeyCheck) algorithms() [][]string {
	switch {
	case h.want.key != nil:
		return [][]string{algorithmsOf(h.want.key)}
	case h.want.fingerprint != "":
		return families
	}
	if known := h.db.HostKeyAlgorithms(h.address()); len(known) > 0 {
		return [][]string{known}
	}
	// Nothing is known of the host, so of no authority for its certificates either.
	return [][]string{slices.Concat(families...)}
}

// check is the ssh.HostKeyCallback.
func (h *hostKeyCheck) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	h.seen = key
	h.err = h.judge(remote, key)
	return h.err
}

func (h *hostKeyCheck) judge(remote net.Addr, key ssh.PublicKey) error {
	shows := fmt.Sprintf("%s %s", key.Type(), ssh.FingerprintSHA256(key))
	if h.db == nil {
		if h.want.is(key) {
			return nil
		}
		return h.c.fail(ErrHostKey, nil,
			"Either the host has been installed anew or somebody is in between: compare with `ssh-keygen -lf /etc/ssh/ssh_host_"+kind(key)+"_key.pub` on the host, then put that into host_key",
			"the host shows another key (%s) than host_key says", shows)
	}
	return h.known(addrOrNone(remote), key)
}

// known judges by the known_hosts files.
func (h *hostKeyCheck) known(remote net.Addr, key ssh.PublicKey) error {
	shows := fmt.Sprintf("%s %s", key.Type(), ssh.FingerprintSHA256(key))
	err := h.db.HostKeyCallback()(h.address(), remote, key)
	var wrong *xknownhosts.KeyError
	var revoked *xknownhosts.RevokedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return h.c.fail(ErrHostKey, nil, "Don't use the host before it has a new key",
			"the host's key (%s) is revoked by %s:%d", shows, h.file(revoked.Revoked.Filename), revoked.Revoked.Line)
	case errors.As(err, &wrong) && len(wrong.Want) > 0:
		slices.SortFunc(wrong.Want, func(a, b xknownhosts.KnownKey) int { return strings.Compare(a.String(), b.String()) })
		var known []string
		for _, k := range wrong.Want {
			known = append(known, fmt.Sprintf("%s:%d (%s %s)", h.file(k.Filename), k.Line, k.Key.Type(), ssh.FingerprintSHA256(k.Key)))
		}
		return h.c.fail(ErrHostKey, nil,
			fmt.Sprintf("Either the host has been installed anew or somebody is in between: compare with `ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub` on the host; if it is right, remove the old one with `ssh-keygen -f %s -R '%s'`",
				kind(key), shell.Quote(h.file(wrong.Want[0].Filename)), xknownhosts.Normalize(h.address())),
			"the host key has changed: the host shows %s, known is %s", shows, strings.Join(known, ", "))
	case errors.As(err, &wrong):
		if h.c.t.acceptNew {
			return h.accept(key)
		}
		where := "the known_hosts files"
		if h.c.t.globalKnown == "" {
			where = strings.ReplaceAll(h.c.t.userKnown, "\n", ", ")
		}
		return h.c.fail(ErrHostKey, nil,
			fmt.Sprintf("Compare with `ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub` on the host, then set host_key = %q, or put the key into known_hosts, or trust new hosts at first sight with accept_new_host_keys = true",
				kind(key), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))),
			"the host is unknown: %s is not in %s", shows, where)
	}
	return h.c.fail(ErrHostKey, err, "", "the host's key (%s) can't be checked", shows)
}

// file is the name of a known_hosts file that may have been read as a copy.
func (h *hostKeyCheck) file(name string) string {
	for _, path := range h.files {
		if strings.HasSuffix(name, path) {
			return path
		}
	}
	return name
}

// accept writes the key of a host that isn't known, once.
func (h *hostKeyCheck) accept(key ssh.PublicKey) error {
	path, _, _ := strings.Cut(h.c.t.userKnown, "\n")
	h.c.pool.hosts.mu.Lock()
	defer h.c.pool.hosts.mu.Unlock()
	// Another connection may have kept a key since the files were read.
	if err := h.read(); err != nil {
		return err
	}
	if len(h.db.HostKeys(h.address())) > 0 {
		return h.known(addrOrNone(nil), key)
	}
	name := xknownhosts.Normalize(h.address())
	if h.c.t.hashNew {
		name = xknownhosts.HashHostname(name)
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	line := name + " " + string(ssh.MarshalAuthorizedKey(key))
	err := appendLine(path, line)
	if err != nil {
		return h.c.fail(ErrHostKey, err, "", "the new host's key can't be kept")
	}
	h.c.pool.o.Log.Info("trusted a new host's key", "host", h.c.String(), "key", ssh.FingerprintSHA256(key), "file", path)
	return nil
}

func appendLine(path, line string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line)
	if err == nil {
		err = f.Sync()
	}
	if errors.Is(err, errors.ErrUnsupported) || isDevice(path) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

func isDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular()
}

// addrOrNone is the address of the other end; behind a jump host there is none
// that tells anything.
func addrOrNone(remote net.Addr) net.Addr {
	if a, ok := remote.(*net.TCPAddr); ok {
		return a
	}
	return &net.TCPAddr{IP: net.IPv4zero}
}

func kind(key ssh.PublicKey) string {
	switch t := key.Type(); {
	case strings.Contains(t, "ed25519"):
		return "ed25519"
	case strings.Contains(t, "ecdsa"):
		return "ecdsa"
	}
	return "rsa"
}

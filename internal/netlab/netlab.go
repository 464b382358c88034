// Package netlab makes a network of its own on this machine, for nodes that are
// to be apart: a switch namespace with a bridge, a network namespace a seat (a
// node, or the client that looks at the cluster from outside), each with an
// interface eth0 on the bridge and its addresses. Further networks are a bridge
// and an interface more each (more.go). Links can be cut, slowed by
// loss and healed (cut.go); what runs in a seat can be told, killed and stopped
// (process.go); Do runs a function inside of a namespace, so that a socket
// opened there lives there (namespace.go).
//
// A Lab belongs to a directory (a definition's .clusterplan): its file
// netns.json says what there is or was about to be, and is written before the
// kernel is asked, so that whoever comes after a crash finds all of it. The
// namespaces' names come from the directory's digest, so that labs don't meet.
//
// Everything needs root. Callers see to it that one process at a time changes a
// lab (the state's lock does); a Lab's own methods may be called at once.
package netlab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
)

// Client is the seat of whoever looks at the cluster from outside. No node may
// have this name.
const Client = "client"

// File is where a lab is recorded, in its directory.
const File = "netns.json"

// ErrNone: the directory has no lab.
var ErrNone = errors.New("there is no network lab")

// ErrRoot: this process may not make network namespaces.
var ErrRoot = errors.New("network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")

// Record is what netns.json holds.
type Record struct {
	Switch string          `json:"switch"`         // the switch's namespace
	Main   string          `json:"main,omitempty"` // name of the network that every seat is on; "": Main
	More   []Network       `json:"more,omitempty"` // the others
	Seats  map[string]Seat `json:"seats"`          // by key: the name of a node's directory, or Client
}

// Seat is one namespace of a lab.
type Seat struct {
	Namespace string         `json:"namespace"` // a file in /run/netns
	Port      string         `json:"port"`      // its interface on the bridge, in the switch's namespace
	MAC       string         `json:"mac"`       // of its eth0
	Addresses []netip.Prefix `json:"addresses"` // of its eth0: the address, and how long its network's prefix is
	More      []Wire         `json:"more,omitempty"`
}

// Address is the seat's first address.
func (s Seat) Address() netip.Addr {
	if len(s.Addresses) == 0 {
		return netip.Addr{}
	}
	return s.Addresses[0].Addr()
}

// Lab is one directory's lab.
type Lab struct {
	dir string
	mu  sync.Mutex // one change at a time
}

// At is the lab of a directory, whether there is one or not. The same
// directory, however it is written, has to be given without symbolic links.
func At(dir string) *Lab { return &Lab{dir: dir} }

// Allowed is nil where this process may make network namespaces; else it says
// what to do. That a container forbids it is told by the first change only.
func Allowed() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w, and this is uid %d; run clusterplan as root (sudo)", ErrRoot, os.Geteuid())
	}
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		return errors.New("this kernel has no network namespaces (CONFIG_NET_NS); nodes as plain processes need none: mode = \"process\"")
	}
	return nil
}

// Record reads what the lab is; ErrNone where there is none.
func (l *Lab) Record() (Record, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, File))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, fmt.Errorf("%w in %s", ErrNone, l.dir)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the network lab: %w", err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("%s is damaged: %w; namespaces that it named begin with %s in %s, remove them with `ip netns delete` and the file with rm, then apply",
			filepath.Join(l.dir, File), err, l.prefix(), nsDir)
	}
	return r, nil
}

// there is the record, empty where there is none.
func (l *Lab) there() (Record, error) {
	r, err := l.Record()
	if errors.Is(err, ErrNone) {
		err = nil
	}
	return r, err
}

func (l *Lab) write(r Record) error {
	file := filepath.Join(l.dir, File)
	if len(r.Seats) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the network lab's record: %w", err)
		}
		return atomicfile.SyncDir(l.dir)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := atomicfile.Write(file, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the network lab's record: %w", err)
	}
	return nil
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// prefix begins the names of all of the lab's namespaces.
func (l *Lab) prefix() string { return "cp" + digest(l.dir)[:8] }

// portOf is a seat's interface on the bridge: its key where that can be the
// name of one and is none that the switch has anyway.
func portOf(key string) string {
	ok := len(key) <= unix.IFNAMSIZ-1 && key != "lo" && key != bridge && key != "." && key != ".." &&
		!strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%' || r == '"' })
	if ok {
		return key
	}
	return "p" + digest(key)[:8]
}

// Networks are what a lab's seats have addresses in: one, or an IPv4 and an
// IPv6 one.
type Networks []netip.Prefix

// Contains tells whether an address is one that a seat can have.
func (n Networks) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) && !reserved(p, a) })
}

// reserved are a network's own address and its broadcast address.
func reserved(p netip.Prefix, a netip.Addr) bool {
	p = p.Masked()
	return a == p.Addr() || (a.Is4() && a == last(p))
}

// last is the highest address of p, with IPv6 of its first 2^16.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	host := p.Addr().BitLen() - p.Bits()
	if !p.Addr().Is4() {
		host = min(host, 16)
	}
	for i := range host {
		b[len(b)-1-i/8] |= 1 << (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Assign gives a seat to key: its addresses, for ever after. It makes nothing
// yet (Wire does). The address of the first network is wanted, where that is
// valid, else the nth host of it (from 0), or the next one that is free. A seat
// that is there keeps what it has as long as that is in the networks and is
// what is wanted.
func (l *Lab) Assign(key string, nets Networks, wanted netip.Addr, nth int) (Seat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.there()
	if err != nil {
		return Seat{}, err
	}
	if r.Seats == nil {
		r = Record{Switch: l.prefix() + ".switch", Seats: map[string]Seat{}}
		// A lab whose directory was removed without it is of no use, and in the way.
		if err := l.sweep(); err != nil {
			return Seat{}, err
		}
	}
	had := r.Seats[key]
	s := l.seat(key)
	s.More = had.More
	for i, p := range nets {
		w := netip.Addr{}
		if wanted.IsValid() && p.Contains(wanted) {
			w = wanted
		}
		for _, a := range had.Addresses {
			if !w.IsValid() && a.Masked() == p.Masked() {
				w = a.Addr()
			}
		}
		a, err := pick(r, key, p, w, nth)
		if err != nil {
			return Seat{}, err
		}
		if i == 0 && wanted.IsValid() && a != wanted {
			return Seat{}, fmt.Errorf("%s is not in %s", wanted, p)
		}
		s.Addresses = append(s.Addresses, netip.PrefixFrom(a, p.Bits()))
	}
	r.Seats[key] = s
	if key != Client {
		c := l.seat(Client)
		c.Addresses, c.More = slices.Clone(r.Seats[Client].Addresses), r.Seats[Client].More
		for _, p := range nets {
			if !slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool { return a.Masked() == p.Masked() }) {
				a, err := clientAddress(r, p)
				if err != nil {
					return Seat{}, err
				}
				c.Addresses = append(c.Addresses, netip.PrefixFrom(a, p.Bits()))
			}
		}
		r.Seats[Client] = c
	}
	return s, l.write(r)
}

// sweep removes every namespace that has this lab's names.
func (l *Lab) sweep() error {
	old, err := all(l.prefix())
	if err != nil {
		return err
	}
	for _, n := range old {
		if err := remove(n); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) seat(key string) Seat {
	s := Seat{Namespace: l.prefix() + "-" + key, Port: portOf(key)}
	if key == Client {
		s.Namespace = l.prefix() + "." + Client
	}
	s.MAC = macOf(s.Namespace)
	return s
}

// macOf is locally administered, the same after a link was made anew.
func macOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}

// holder is the seat that has an address, or "".
func holder(r Record, a netip.Addr) string {
	for key, s := range r.Seats {
		for _, w := range s.wires() {
			if slices.ContainsFunc(w.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
				return key
			}
		}
	}
	return ""
}

// pick is the wanted address, else the nth of p that nobody has.
func pick(r Record, key string, p netip.Prefix, wanted netip.Addr, nth int) (netip.Addr, error) {
	if wanted.IsValid() {
		if reserved(p, wanted) {
			return wanted, fmt.Errorf("%s is the network's or the broadcast address of %s", wanted, p)
		}
		if by := holder(r, wanted); by != "" && by != key {
			return wanted, fmt.Errorf("%s is already the address of %s; give the node another one", wanted, by)
		}
		return wanted, nil
	}
	a := p.Masked().Addr().Next()
	for range max(nth, 0) {
		a = a.Next()
	}
	end := last(p)
	for ; a.IsValid() && p.Contains(a) && a.Less(end); a = a.Next() {
		if holder(r, a) == "" && !reserved(p, a) {
			return a, nil
		}
	}
	return a, fmt.Errorf("%s has no free address for another node; use a larger network", p)
}

// clientAddress is the highest one that is free.
func clientAddress(r Record, p netip.Prefix) (netip.Addr, error) {
	for a := last(p).Prev(); p.Contains(a) && !reserved(p, a); a = a.Prev() {
		if holder(r, a) == "" {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no free address for the client; use a larger network", p)
}

// Holds tells whether key has a seat in the record.
func (l *Lab) Holds(key string) (bool, error) {
	r, err := l.there()
	_, ok := r.Seats[key]
	return ok, err
}

// NamespaceOf is the namespace in which an address of a seat is; "": no seat's.
func (l *Lab) NamespaceOf(a netip.Addr) (string, error) {
	r, err := l.there()
	if err != nil {
		return "", err
	}
	if key := holder(r, a.Unmap()); key != "" {
		return r.Seats[key].Namespace, nil
	}
	return "", nil
}

// explain says what to do about what the kernel refuses.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: %w; run as root, in a container with these capabilities, or use mode = \"process\"", what, err, ErrRoot)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%s: %w: this kernel lacks it (wanted: network namespaces, veth, bridge, and nf_tables with its bridge family for cuts); load the module, or use mode = \"process\"", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

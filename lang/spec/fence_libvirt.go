package spec

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// FenceLibvirt is the built-in agent for nodes that are virtual machines: the
// libvirtd at its parameter uri turns them off. A node's plug is its machine.
const (
	FenceLibvirt        = "libvirt"
	FenceLibvirtURI     = "uri"            // the hypervisor, as the agents reach it
	FenceLibvirtKey     = "private_key"    // text of what agents log in with: of SSH, or of the certificate
	FenceLibvirtHostKey = "host_key"       // of the hypervisor's SSH server, or its fingerprint
	FenceLibvirtCert    = "certificate"    // PEM, with TLS
	FenceLibvirtCA      = "ca_certificate" // PEM: whom libvirtd's certificate is by
)

// FenceMachines names the fence that nodes on machines have by default.
const FenceMachines = "machines"

var libvirtParameters = []string{FenceLibvirtCA, FenceLibvirtCert, FenceLibvirtHostKey, FenceLibvirtKey, FenceLibvirtURI}

// libvirtFence checks what is particular to the agent libvirt.
func (c *checker) libvirtFence(f *Fence) {
	for _, name := range slices.Sorted(maps.Keys(f.Parameters)) {
		if !slices.Contains(libvirtParameters, name) {
			c.add(f.Addr, "parameters", "Parameter that the libvirt fence has not", "The built-in agent libvirt takes %s, and this is %q. Remove it; a node's machine goes into plugs.", strings.Join(libvirtParameters, ", "), name)
		}
	}
	if f.Parameters[FenceLibvirtURI] == "" {
		c.add(f.Addr, "parameters", "No hypervisor", "The built-in agent libvirt needs the hypervisor as the nodes reach it. Write parameters = { uri = \"qemu+tls://HOST/system\" }.")
	} else if _, _, why := libvirtURI(f.Parameters[FenceLibvirtURI]); why != "" {
		c.add(f.Addr, "parameters", "Hypervisor that no agent could reach", "The built-in agent libvirt could not use its uri: %s.", why)
	}
}

// libvirtURI reads a URI of libvirt's that names a host; why: no agent could use it,
// whatever else it is given. What it says shows nothing of the URI, which may be a
// secret.
func libvirtURI(text string) (u *url.URL, transport, why string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return nil, "", "the uri is none of libvirt's (write for example qemu+tls://10.88.0.1/system)"
	}
	_, transport, _ = strings.Cut(u.Scheme, "+")
	_, secret := u.User.Password()
	unchecked := u.Query().Get("no_verify")
	switch {
	case secret:
		return u, transport, "the uri has a password in it, which nothing logs in with (give a key)"
	case u.Path == "":
		return u, transport, "the uri has no path (write for example qemu+tls://10.88.0.1/system)"
	case !slices.Contains([]string{"", "unix", "ssh", "tls", "tcp"}, transport):
		return u, transport, fmt.Sprintf("+%s in the uri is not known: there are +ssh, +tls and +tcp", transport)
	case (transport == "ssh" || transport == "tls" || transport == "tcp") && u.Host == "", transport == "unix" && u.Host != "":
		return u, transport, "the uri has +ssh, +tls or +tcp without a host, or a host without one of them"
	case unchecked != "" && unchecked != "0":
		return u, transport, "no_verify in the uri would trust any host"
	}
	return u, transport, ""
}

// HypervisorAccess is how the agents inside machines are to reach their hypervisor.
type HypervisorAccess struct {
	Parameters map[string]string // of the agent libvirt
	// Elsewhere: files that the URI names are of the machine that plans, and not of
	// the agents.
	Elsewhere bool
	Secret    bool // the URI is not to be shown
}

// Lacks says why agents that run inside the machines of a hypervisor could not have
// its libvirtd turn machines off, as far as the parameters tell; "": they could.
func (h *HypervisorAccess) Lacks() string {
	u, transport, why := libvirtURI(h.Parameters[FenceLibvirtURI])
	if why != "" {
		return why
	}
	host, shown := u.Hostname(), u.Redacted()
	if h.Secret {
		host, shown = "the hypervisor", "the uri"
	}
	if u.Host == "" {
		return fmt.Sprintf("%s is a socket of the hypervisor, which the agents, inside its machines, can't open", shown)
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && (a.IsLoopback() || a.IsUnspecified()) {
		return fmt.Sprintf("%s of %s is, inside a machine, that machine", host, shown)
	}
	has := func(name string) bool { return h.Parameters[name] != "" }
	elsewhere := ""
	file := func(name string) bool {
		if u.Query().Get(name) == "" {
			return false
		}
		if h.Elsewhere {
			elsewhere = fmt.Sprintf(" (%s of the provider's uri is on the machine that plans)", name)
		}
		return !h.Elsewhere
	}
	texts := has(FenceLibvirtKey) && has(FenceLibvirtCert) && has(FenceLibvirtCA)
	switch {
	case transport == "ssh" && !has(FenceLibvirtKey) && !file("keyfile"):
		return fmt.Sprintf("the agents have no key to log in to %s with%s", host, elsewhere)
	case transport == "ssh" && !has(FenceLibvirtHostKey) && !file("known_hosts"):
		return fmt.Sprintf("the agents don't know the key of %s's SSH server, and host keys are always checked%s", host, elsewhere)
	case (transport == "tls" || transport == "") && !texts && (has(FenceLibvirtCert) || has(FenceLibvirtCA) || !file("pkipath")):
		return fmt.Sprintf("the agents have no key, no certificate or no authority for TLS with %s%s", host, elsewhere)
	}
	return ""
}

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
	}
}

// NoHypervisorAccess says why agents that run inside the machines of a hypervisor
// could not have its libvirtd turn machines off with these parameters of the agent
// libvirt, as far as these tell; "": they could.
func NoHypervisorAccess(parameters map[string]string) string {
	text := parameters[FenceLibvirtURI]
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return fmt.Sprintf("%q is no URI of libvirt's", text)
	}
	if u.Host == "" {
		return fmt.Sprintf("%s is a socket of the hypervisor, which the agents, inside its machines, can't open", text)
	}
	host := u.Hostname()
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		return fmt.Sprintf("%s of %s is, inside a machine, that machine", host, u.Redacted())
	}
	_, transport, _ := strings.Cut(u.Scheme, "+")
	q, has := u.Query(), func(name string) bool { return parameters[name] != "" }
	switch {
	case transport == "ssh" && !has(FenceLibvirtKey) && q.Get("keyfile") == "":
		return fmt.Sprintf("the agents have no key to log in to %s with", host)
	case transport == "ssh" && !has(FenceLibvirtHostKey) && q.Get("known_hosts") == "":
		return fmt.Sprintf("the agents don't know the key of %s's SSH server, and host keys are always checked", host)
	case (transport == "tls" || transport == "") && q.Get("pkipath") == "" && !(has(FenceLibvirtKey) && has(FenceLibvirtCert) && has(FenceLibvirtCA)):
		return fmt.Sprintf("the agents have no key, no certificate or no authority for TLS with %s", host)
	}
	return ""
}

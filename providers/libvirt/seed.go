package libvirt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/kdomanski/iso9660"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/crypto/ssh"
)

// seed is the disk that cloud-init looks for: an ISO image called cidata.
func (m *making) seed() ([]byte, error) {
	user, err := m.userData()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(m.key.public))
	files := map[string]string{
		// Another id where there is another key: cloud-init runs again on a disk
		// that it has seen.
		"meta-data":      fmt.Sprintf("instance-id: %s-%x\nlocal-hostname: %s\n", m.req.ID, sum[:4], m.want.Name),
		"user-data":      user,
		"network-config": m.networkConfig(),
	}
	w, err := iso9660.NewWriter()
	if err != nil {
		return nil, fmt.Errorf("make the cloud-init seed: %w", err)
	}
	defer w.Cleanup()
	for name, content := range files {
		if err := w.AddFile(strings.NewReader(content), name); err != nil {
			return nil, fmt.Errorf("make the cloud-init seed: %w", err)
		}
	}
	var iso bytes.Buffer
	if err := w.WriteTo(&iso, "cidata"); err != nil {
		return nil, fmt.Errorf("make the cloud-init seed: %w", err)
	}
	return iso.Bytes(), nil
}

// userData is the definition's, or what lets the user in with the keys.
func (m *making) userData() (string, error) {
	ci := m.want.CloudInit
	if ci.UserData != "" {
		return ci.UserData, nil
	}
	keys := ci.Keys
	if len(keys) == 0 {
		keys = m.p.keys
	}
	if len(keys) == 0 && m.want.Image != "" { // an initramfs or a volume may let people in by itself
		return "", cty.GetAttrPath("cloud_init").GetAttr("ssh_authorized_keys").NewErrorf("nobody could log in to machine %s: you have no public key in ~/.ssh; make one (ssh-keygen -t ed25519), name its file with ssh_public_key_file in the provider block, or write ssh_authorized_keys or user_data", m.want.Name)
	}
	type account struct {
		Name  string   `json:"name"`
		Keys  []string `json:"ssh_authorized_keys"`
		Sudo  string   `json:"sudo,omitempty"`
		Shell string   `json:"shell,omitempty"`
	}
	a := account{Name: ci.User, Keys: keys}
	if ci.User != "root" {
		a.Sudo, a.Shell = "ALL=(ALL) NOPASSWD:ALL", "/bin/bash"
	}
	text, err := json.MarshalIndent(map[string]any{ // JSON is YAML
		"hostname": m.want.Name, "users": []account{a}, "disable_root": ci.User != "root", "ssh_pwauth": false,
		"ssh_keys": map[string]string{"ed25519_private": m.key.private, "ed25519_public": m.key.public},
	}, "", "  ")
	return "#cloud-config\n" + string(text) + "\n", err
}

// networkConfig has every interface ask for its address, unless the definition
// says something else.
func (m *making) networkConfig() string {
	if m.want.CloudInit.NetworkConfig != "" {
		return m.want.CloudInit.NetworkConfig
	}
	if len(m.nics) == 0 {
		return "version: 2\n"
	}
	var b strings.Builder
	b.WriteString("version: 2\nethernets:\n")
	for i, n := range m.nics {
		fmt.Fprintf(&b, "  nic%d:\n    match:\n      macaddress: %q\n    dhcp4: true\n    dhcp-identifier: mac\n", i, n.mac)
	}
	return b.String()
}

// hostKey is what an SSH server shows who it is with.
type hostKey struct {
	private string // OpenSSH's PEM; only the seed has it
	public  string // as in known_hosts, without a name
}

func newHostKey(name string) (hostKey, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return hostKey{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		return hostKey{}, err
	}
	shown, err := ssh.NewPublicKey(public)
	if err != nil {
		return hostKey{}, err
	}
	return hostKey{private: string(pem.EncodeToMemory(block)), public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shown)))}, nil
}

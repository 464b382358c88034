package libvirt

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// TestRemote has a network, and a volume with an image that is uploaded, made, read
// and removed over SSH, and over TLS.
func TestRemote(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		key, host := lab.SSHD(t)
		known, image := filepath.Join(lab.Dir, "known_hosts"), filepath.Join(lab.Dir, "data.img")
		for file, text := range map[string]string{known: "127.0.0.1 " + host + "\n", image: string(make([]byte, 1<<20))} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		certificates := lab.TLS(t)
		for _, uri := range []string{
			"qemu+ssh://root@127.0.0.1/system?keyfile=" + key + "&known_hosts=" + known,
			"qemu+tls://127.0.0.1/system?pkipath=" + certificates,
		} {
			p := configured(t, uri, nil)
			w := &world{t: t, p: p}
			network := object(p, addr.TypeNetwork, "lab", map[string]cty.Value{"subnet": str("10.88.0.0/24"), "mode": str(NetworkIsolated)})
			volume := object(p, addr.TypeVolume, "data", map[string]cty.Value{"image": str(image)})
			lan := w.apply(addr.TypeNetwork, "lab", labID, nil, network)
			data := w.apply(addr.TypeVolume, "data", oneID, nil, volume)
			if got := lab.Virsh("net-list", "--name"); got != "lab" {
				t.Errorf("%s: it has the networks %q", uri, got)
			}
			if _, err := os.Stat(text(data.Value, "path")); err != nil {
				t.Errorf("%s: %v", uri, err)
			}
			w.settled(addr.TypeNetwork, "lab", w.read(addr.TypeNetwork, "lab", labID, lan), network)
			w.settled(addr.TypeVolume, "data", w.read(addr.TypeVolume, "data", oneID, data), volume)
			w.apply(addr.TypeVolume, "data", oneID, data, cty.NilVal)
			w.apply(addr.TypeNetwork, "lab", labID, lan, cty.NilVal)
			nothingLeft(t, lab, DefaultPoolPath)
		}
	})
}

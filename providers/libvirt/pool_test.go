package libvirt

import (
	"path/filepath"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// TestPoolNotStarted: an apply that ended when its pool was defined and not
// started leaves nothing after a destroy.
func TestPoolNotStarted(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		dir := filepath.Join(lab.Dir, "pool")
		p := configured(t, lab.URI, map[string]cty.Value{"pool_path": str(dir)})
		w := &world{t: t, p: p}
		if err := p.conn.Do(t.Context(), "define", func(l *golibvirt.Libvirt) error {
			text, err := toXML(xmlPool{Type: "dir", Name: DefaultPool, UUID: uuidText(poolUUID(DefaultPool)), Target: xmlTarget{Path: dir}})
			if err == nil {
				_, err = l.StoragePoolDefineXML(text, 0)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		w.apply(addr.TypeVolume, "data", "0a", onlyID("0a"), cty.NilVal)
		nothingLeft(t, lab, dir)
	})
}

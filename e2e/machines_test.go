package e2e

import (
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
)

// The whole chain of examples/libvirt, in one apply: a network, three machines
// under emulation, a node on each over SSH, a cluster, a group whose address
// answers. A machine that dies is survived at once, and made again by the next
// apply; destroy leaves nothing on the hypervisor.
func TestMachines(t *testing.T) {
	if !libvirtlab.Inside() {
		t.Parallel()
	}
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		guest := libvirtlab.Tiny(t)
		l := copyExample(t, "libvirt")
		key := filepath.Join(lab.Dir, "key")
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		l.env = append(l.env, "HOME="+lab.Dir, "CLUSTERPLAN_VAR_key="+key, "CLUSTERPLAN_VAR_image="+filepath.Dir(guest.Kernel), "CLUSTERPLAN_VAR_accelerator=tcg")
		hc := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		// answers waits until the address is answered by another node than not.
		answers := func(not string) (node string) {
			t.Helper()
			l.until("the address answers", func() (bool, string) {
				res, err := hc.Get("http://10.88.0.100:8077/")
				if err != nil {
					return false, err.Error()
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				node = strings.TrimSpace(string(body))
				return err == nil && node != not, node
			})
			return node
		}

		l.run("plan").wants(t, `machine.n["n1"]`, "known after apply", "11 to add")
		begun := time.Now()
		l.apply()
		owner := answers("")
		t.Logf("from nothing to an address that answers: %v", time.Since(begun).Round(100*time.Millisecond))
		l.settled()

		lab.Virsh("destroy", owner)
		answers(owner)
		l.run("plan").wants(t, "machine is off")
		begun = time.Now()
		l.apply()
		t.Logf("a machine that was off is a node again: %v", time.Since(begun).Round(100*time.Millisecond))
		l.settled()

		l.must(0, "destroy", "--auto-approve")
		for _, list := range [][]string{{"list", "--all", "--name"}, {"net-list", "--all", "--name"}, {"pool-list", "--all", "--name"}} {
			if left := strings.TrimSpace(lab.Virsh(list...)); left != "" {
				t.Errorf("destroy leaves on the hypervisor (%s): %s", list[0], left)
			}
		}
		for _, o := range l.state().Objects {
			t.Errorf("destroy leaves %s in the state", o.Addr)
		}
	})
}

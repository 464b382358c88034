package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/sshconn"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// ProbeName makes host a providers.Prober: host:port, and the way there.
func (h *host) ProbeName() string { return h.conn.String() }

// Probe runs a script there that only reads.
func (h *host) Probe(ctx context.Context, script string) ([]byte, error) { return h.run(ctx, script) }

// examineKeys looks at the key files that the definition names: they are on this
// machine, so that it needs no host, nor its address.
func examineKeys(env providers.Env, block string, nodes []providers.Examinee) []providers.Finding {
	var files []string
	users := map[string][]addr.Address{}
	for _, n := range nodes {
		name := block
		if own, known := ownKey(n.Config); !known {
			continue
		} else if own != "" {
			name = file(env.DataDir, own)
		}
		if name == "" || strings.Contains(name, "%") {
			continue // OpenSSH's, of which none need be there, or another file for each host
		}
		if users[name] == nil {
			files = append(files, name)
		}
		users[name] = append(users[name], n.Addr)
	}
	var found []providers.Finding
	for _, name := range files {
		f := providers.Finding{Where: providers.ThisMachine, Check: providers.CheckKey, Level: providers.LevelOK, Found: name, Objects: users[name]}
		open, err := sshconn.CheckKeyFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = fmt.Errorf("there is no %s", name)
		case errors.Is(err, fs.ErrPermission):
			err = fmt.Errorf("uid %d may not read %s", os.Getuid(), name)
		}
		switch {
		case err != nil:
			f.Level, f.Found, f.Advice = providers.LevelFail, err.Error(), "Name the private key that the hosts know with private_key_file, or leave that out: then OpenSSH's keys and its agent are used"
		case open:
			f.Level, f.Found, f.Advice = providers.LevelWarn, name+" can be read by others on this machine", "Run `chmod 600 "+name+"`: whoever has it can log in on the hosts, and OpenSSH's own ssh refuses it"
		}
		found = append(found, f)
	}
	return found
}

// ownKey is private_key_file of a node's own ssh block; "": it has none.
func ownKey(node cty.Value) (name string, known bool) {
	v := node
	for _, attr := range []string{"ssh", "private_key_file"} {
		if v == cty.NilVal || v.IsNull() {
			return "", true
		}
		if v, _ = v.Unmark(); !v.IsKnown() {
			return "", false
		}
		if !v.Type().IsObjectType() || !v.Type().HasAttribute(attr) {
			return "", true
		}
		v = v.GetAttr(attr)
	}
	if v, _ = v.Unmark(); !v.IsKnown() {
		return "", false
	}
	if v.IsNull() {
		return "", true
	}
	return v.AsString(), true
}

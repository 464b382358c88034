package libvirt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// uuidOf is the UUID of the machine or network with the id: it follows from the
// id, or, of an imported one, is it.
func uuidOf(typ, id string) libvirt.UUID {
	if u, ok := parseUUID(id); ok {
		return u
	}
	return derived("clusterplan " + typ + " " + id)
}

// derived is a UUID (version 8: of its maker's own making) that follows from text.
func derived(text string) libvirt.UUID {
	sum := sha256.Sum256([]byte(text))
	u := libvirt.UUID(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}

func parseUUID(s string) (u libvirt.UUID, ok bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || len(s) != 36 {
		return u, false
	}
	return libvirt.UUID(b), true
}

func uuidText(u libvirt.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// foreignID tells whether an id is of something that others made: their UUID,
// or pool/name.
func foreignID(id string) bool {
	_, is := parseUUID(id)
	return is || strings.Contains(id, "/")
}

// macOf is the address of a machine's i-th interface, unless it is given: of
// the range that QEMU has (52:54:00).
func macOf(id string, i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "clusterplan mac %s %d", id, i))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", sum[0], sum[1], sum[2])
}

// fileOf is the name of a file of an object in the pool: people see whose it
// is, and it is found by the id alone.
func fileOf(name, id, what string) string { return name + "." + id + "." + what }

// isFileOf tells whether a volume is a file of the object with the id: one that
// was made here. A copy or a snapshot that somebody keeps beside it is not.
func isFileOf(volume, id string) bool {
	_, what, _ := strings.Cut(volume, "."+id+".")
	return whatFile.MatchString(what)
}

// isVolume tells whether a file is of the volume that a definition calls name.
func isVolume(file, name string) bool {
	return strings.HasPrefix(file, name+".") && strings.HasSuffix(file, "."+volumeFile)
}

var whatFile = regexp.MustCompile(`^(disk\.qcow2|seed\.iso|volume\.qcow2|upload|console\.log(\.[0-9]+)?)$`) // virtlogd numbers older parts

// isMark tells whether a file of an object says only that there is one.
func isMark(volume string) bool { return strings.HasSuffix(volume, "."+uploadFile) }

// isImage tells whether a volume is an image in the cache: people call theirs
// image-debian.qcow2, and more.
func isImage(volume string) bool { return imageShape.MatchString(volume) }

var imageShape = regexp.MustCompile("^" + imagePrefix + "[0-9a-f]{64}$")

// What files of objects, and of the cache, are called.
const (
	diskFile    = "disk.qcow2"
	seedFile    = "seed.iso"
	consoleFile = "console.log"
	volumeFile  = "volume.qcow2"
	uploadFile  = "upload" // empty: something is uploaded for it
	imagePrefix = "image-"
)

// text is a string of a value; "": none, or not known yet.
func text(v cty.Value, name string) string {
	if v == cty.NilVal || v.IsNull() || !v.Type().HasAttribute(name) {
		return ""
	}
	v, _ = v.GetAttr(name).Unmark()
	if v.IsKnown() && !v.IsNull() {
		return v.AsString()
	}
	return ""
}

func priorValue(o *providers.Object) cty.Value {
	if o == nil || o.Value == cty.NilVal || o.Value.IsNull() {
		return cty.NilVal
	}
	return o.Value
}

func keyLines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

func expandHome(path string) string {
	if rest, is := strings.CutPrefix(path, "~/"); is {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// taken is the error for a name that something else has.
func taken(typ, name, uri string) error {
	what := map[string]string{addr.TypeMachine: "machine", addr.TypeNetwork: "network"}[typ]
	return cty.GetAttrPath("name").NewErrorf("%s has a %s %q already that is not this definition's; give this one another name, delete that one, or take it over with an import block (id = %q)", uri, what, name, name)
}

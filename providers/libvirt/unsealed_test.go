package libvirt

import (
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// A hypervisor keeps digests of what cloud-init gives to a machine: the texts are known
// where they are the state's. Where that has but a digest too, no text is made of either:
// ignore_changes would have the next seed hold it.
func TestUnsealed(t *testing.T) {
	block := func(userData string) cty.Value {
		v := cty.NullVal(cty.String)
		if userData != "" {
			v = cty.StringVal(userData)
		}
		return cty.ObjectVal(map[string]cty.Value{"user_data": v, "network_config": cty.NullVal(cty.String)})
	}
	digest := spec.Digest('s', "BF3v0123456789012345678901234567890123456789"[:43])
	for _, c := range []struct{ there, known, want string }{
		{textDigest("hush"), "hush", "hush"},
		{textDigest("hush"), "other", textDigest("hush")},
		{textDigest("hush"), digest, digest},
		{"", digest, ""},
		{textDigest("hush"), "", textDigest("hush")},
	} {
		if got := text(unsealed(block(c.there), block(c.known)), "user_data"); got != c.want {
			t.Errorf("%q with %q known is %q, not %q", c.there, c.known, got, c.want)
		}
	}
}

package diskdb

// Mutations of the rules, for tests that have to find them.
const (
	NoReadBack       = noReadBack
	UnboundedClaim   = unboundedClaim
	AuthorityFromEnd = authorityFromEnd
	SilenceFromStart = silenceFromStart
	OneRegion        = oneRegion
	NoVerify         = noVerify
)

// Mutate breaks a rule.
func (d *Driver) Mutate(m mutation) { d.mutate, d.a.mutate = m, m }

// AreaRoom is what the smallest area has room for.
const AreaRoom = areaLeast - farthest

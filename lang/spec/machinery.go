package spec

// WithIdentity puts in front of the schema of a machine, network or volume what
// every one of them has: its name and its provider.
func (s Schema) WithIdentity() Schema {
	s.Attributes = append([]Attribute{
		{Name: "name", Type: TypeString, KnownAtPlan: true, Impact: ImpactReplace, Doc: "Unique where its provider makes it; the label (label-key for an instance) unless it is given."},
		{Name: "provider", Type: TypeString, Required: true, KnownAtPlan: true, Impact: ImpactReplace, Doc: "The provider that makes it, a keyword."},
	}, s.Attributes...)
	return s
}

// Refers is what an attribute of the type names: node, group, network or volume;
// "": it is a plain value. many: a list of them.
func (t ValueType) Refers() (kind string, many bool) {
	switch t {
	case TypeNodeRefs:
		return "node", true
	case TypeGroupRefs:
		return "group", true
	case TypeNetworkRef:
		return "network", false
	case TypeNetworkRefs:
		return "network", true
	case TypeVolumeRef:
		return "volume", false
	case TypeVolumeRefs:
		return "volume", true
	}
	return "", false
}

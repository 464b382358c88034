package spec

// The shapes of objects and of resource types, as data. Names are the JSON
// tags of the types in spec.go, so that a value written as JSON is its type's
// JSON. Numbers in defaults are int64; lists and maps have no defaults: absent
// ones are empty.

// ClusterSchema is the shape of the cluster block.
func ClusterSchema() Schema {
	return Schema{
		Name: "cluster",
		Doc:  "The cluster itself: who may run it, and how fast its nodes notice each other.",
		Attributes: []Attribute{
			{Name: "name", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "The cluster's name; the block's label unless it is given."},
			{Name: "description", Type: TypeString, Impact: ImpactNone, Doc: "For people."},
			{Name: "configuration", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone,
				Values: []string{VirtualServer, StaticLoadBalancing, HotSpare, Partial, Hybrid}, Doc: "How groups are meant to lie on nodes; validate checks it."},
			{Name: "max_unavailable", Type: TypeNumber, Default: int64(1), KnownAtPlan: true, Impact: ImpactNone, Doc: "Nodes that a rolling apply may have down at once."},
		},
		Blocks: []Block{
			{Name: "quorum", Doc: "Who may run the cluster.", Attributes: []Attribute{
				{Name: "model", Type: TypeString, Required: true, KnownAtPlan: true, Impact: ImpactMembership,
					Values: []string{string(SingleNode), string(SingleQuorum), string(MajorityNodeSet)}, Doc: "single_node, single_quorum or majority_node_set."},
				{Name: "device", Type: TypeString, KnownAtPlan: true, Impact: ImpactMembership, Doc: "single_quorum: the file or block device that every node sees, as an absolute path."},
			}},
			{Name: "heartbeat", Doc: "How fast nodes notice each other; all spans but the profile need profile = \"custom\".", Attributes: []Attribute{
				{Name: "profile", Type: TypeString, Default: ProfileFast, Values: []string{ProfileFast, ProfileMSCS, ProfileCustom}, KnownAtPlan: true, Impact: ImpactTimings, Doc: "fast, mscs (the schedule of Microsoft Cluster Service) or custom."},
				{Name: "interval", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "Between two frames of a leader, or with probes two beats of a node; default 50ms."},
				{Name: "reply_within", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "With probes: how long an answer to a beat may take; default two fifths of the interval."},
				{Name: "suspicion", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "Silence after which a node is suspected; default 5 intervals. With probes it follows from them."},
				{Name: "rank_delay", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "Between the campaigns of two ranks; default 40ms."},
				{Name: "lease", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "How long a node may own groups without word from the leader; default 12 intervals; with probes, as long as a change of leader takes."},
				{Name: "stop_within", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "Graceful stop of groups that name no span of their own, when their node has lost its lease; default 100ms."},
				{Name: "kill", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "From the kill to the proof that all is down; default 50ms."},
				{Name: "device_io", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "single_quorum: how long one read or write of the quorum device may take; default 200ms. The lease follows it."},
			}, Blocks: []Block{
				{Name: "probe", Repeated: true, Doc: "A phase of probes to a node that left a beat unanswered; phases follow one another.", Attributes: []Attribute{
					{Name: "count", Type: TypeNumber, Required: true, KnownAtPlan: true, Impact: ImpactTimings, Doc: "Probes in this phase."},
					{Name: "every", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "The wait before each; or"},
					{Name: "within", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactTimings, Doc: "the span that they are spread over."},
				}},
			}},
			{Name: "link", Repeated: true, Label: "name", Doc: "A network that nodes share. Frames go over every internal one in parallel.", Attributes: []Attribute{
				{Name: "name", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "The block's label."},
				{Name: "subnet", Type: TypeString, Required: true, KnownAtPlan: true, Impact: ImpactNone, Doc: "As 10.77.0.0/24: a node's address on the link is the one in it."},
				{Name: "role", Type: TypeString, Default: LinkInternal, Values: []string{LinkInternal, LinkClient, LinkAll}, KnownAtPlan: true, Impact: ImpactNone, Doc: "internal or all: carries frames; client: carries none."},
			}},
		},
	}
}

// NodeSchema is the shape of a node block. Computed attributes are known once
// the node's agent is installed.
func NodeSchema() Schema {
	return Schema{
		Name: "node",
		Doc:  "A computer (or, with provider local, a process) that runs an agent.",
		Attributes: []Attribute{
			{Name: "name", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "Unique in the cluster; the label (label-key for an instance) unless it is given."},
			{Name: "provider", Type: TypeString, Required: true, KnownAtPlan: true, Impact: ImpactReplace, Doc: "The provider that reaches it, a keyword: local or ssh."},
			{Name: "address", Type: TypeString, Impact: ImpactRestartAgent, Doc: "host or host:port where its agent listens; optional with provider local."},
			{Name: "port", Type: TypeNumber, Impact: ImpactRestartAgent, Doc: "Its port, where address has none."},
			{Name: "zone", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "Fault domain."},
			{Name: "capacity", Type: TypeQuantities, KnownAtPlan: true, Impact: ImpactNone, Doc: "What it can carry: { cpu = 4, memory = \"8GiB\" }."},
			{Name: "spare", Type: TypeBool, Default: false, KnownAtPlan: true, Impact: ImpactNone, Doc: "hot_spare: owns nothing while a primary is up."},
			{Name: "votes", Type: TypeNumber, Default: int64(1), KnownAtPlan: true, Impact: ImpactMembership, Doc: "0 or 1; 0 keeps a copy of the database and never counts for quorum."},
			{Name: "role", Type: TypeString, Default: RoleMember, Values: []string{RoleMember, RoleWitness}, KnownAtPlan: true, Impact: ImpactMembership, Doc: "A witness votes and keeps the database, and never owns a group."},
			{Name: "labels", Type: TypeStringMap, KnownAtPlan: true, Impact: ImpactNone, Doc: "For expressions and people."},
			{Name: "watchdog", Type: TypeString, KnownAtPlan: true, Impact: ImpactRestartAgent, Doc: "The watchdog device that resets the node when it can't prove that what it ran without a lease is down, as /dev/watchdog; default: none. It needs root."},
			{Name: "watchdog_timeout", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactRestartAgent, Doc: "How long the watchdog waits before it resets, in whole seconds; default 5s. The takeover of groups that rely on it waits so much longer."},
			{Name: "reset", Type: TypeString, Values: []string{ResetSysrq}, KnownAtPlan: true, Impact: ImpactRestartAgent, Doc: "sysrq: the agent resets the host, at once and without a sync, when what it ran without a lease is not gone after stop_within and kill; default: it doesn't. It needs root. Not for provider local."},
			{Name: "endpoint", Type: TypeString, Computed: true, Impact: ImpactNone, Doc: "host:port of its agent."},
			{Name: "server_id", Type: TypeNumber, Computed: true, Impact: ImpactNone, Doc: "The id of its data directory in the database's consensus."},
			{Name: "program", Type: TypeString, Computed: true, Impact: ImpactRestartAgent, Doc: "Digest of the agent's program."},
		},
		Blocks: []Block{SSHBlock()},
	}
}

// SSHBlock is how a host is reached over SSH, in a block of its own.
func SSHBlock() Block {
	return Block{Name: "ssh", Doc: "provider ssh: how this host is reached, where that is not what the provider's block says.", Attributes: []Attribute{
		{Name: "host", Type: TypeString, Impact: ImpactNone, Doc: "Its address or name for SSH, or a Host of ~/.ssh/config; default: that of address."},
		{Name: "port", Type: TypeNumber, Impact: ImpactNone, Doc: "Of its SSH server."},
		{Name: "user", Type: TypeString, Impact: ImpactNone, Doc: "Who logs in."},
		{Name: "host_key", Type: TypeString, Impact: ImpactNone, Doc: "Its public key (ssh-ed25519 AAAA...) or the fingerprint (SHA256:...), in place of known_hosts."},
		{Name: "private_key_file", Type: TypeString, Impact: ImpactNone, Doc: "The key to log in with."},
		{Name: "sudo", Type: TypeBool, Impact: ImpactNone, Doc: "Whether the user becomes root by sudo."},
	}}
}

// GroupSchema is the shape of a group block without its resources.
func GroupSchema() Schema {
	return Schema{
		Name: "group",
		Doc:  "Resources that run on one node together and fail over together.",
		Attributes: []Attribute{
			{Name: "name", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "Unique in the cluster; the label (label-key for an instance) unless it is given."},
			{Name: "description", Type: TypeString, Impact: ImpactNone, Doc: "For people."},
			{Name: "preferred_owners", Type: TypeNodeRefs, KnownAtPlan: true, Impact: ImpactNone, Doc: "Nodes, best first."},
			{Name: "possible_owners", Type: TypeNodeRefs, KnownAtPlan: true, Impact: ImpactNone, Doc: "The only nodes that may own it; default: every member."},
			{Name: "priority", Type: TypeNumber, Default: int64(2000), KnownAtPlan: true, Impact: ImpactNone, Doc: "High comes up first; 0 is not started by itself."},
			{Name: "demand", Type: TypeQuantities, KnownAtPlan: true, Impact: ImpactNone, Doc: "What it needs of a node's capacity."},
			{Name: "depends_on", Type: TypeGroupRefs, KnownAtPlan: true, Impact: ImpactNone, Doc: "Groups that are online before it is started."},
			{Name: "keep_apart", Type: TypeGroupRefs, KnownAtPlan: true, Impact: ImpactNone, Doc: "Groups that are never on one node with it."},
			{Name: "keep_apart_soft", Type: TypeGroupRefs, KnownAtPlan: true, Impact: ImpactNone, Doc: "The same, unless there is no other node."},
			{Name: "persistent_state", Type: TypeString, Default: WantOnline, Values: []string{WantOnline, WantOffline}, KnownAtPlan: true, Impact: ImpactNone, Doc: "Sent when the group is created and when this line changes."},
			{Name: "stop_within", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactNone, Doc: "Graceful stop when its node has lost its lease; default: the heartbeat's."},
			{Name: "no_quorum", Type: TypeString, Default: NoQuorumStop, Values: []string{NoQuorumStop, NoQuorumFreeze}, KnownAtPlan: true, Impact: ImpactNone, Doc: "What becomes of it when its node has lost the quorum: stop; or freeze: it goes on untouched, nothing is started, and only a fence frees it. A change counts from its next start."},
		},
		Blocks: []Block{
			{Name: "failover", Doc: "What happens when its node is lost.", Attributes: []Attribute{
				{Name: "mode", Type: TypeString, Default: FailoverAutomatic, Values: []string{FailoverAutomatic, FailoverManual, FailoverNone}, KnownAtPlan: true, Impact: ImpactNone, Doc: "automatic, manual (waits for an operator) or none (stays down with its node)."},
				{Name: "threshold", Type: TypeNumber, Default: int64(0), KnownAtPlan: true, Impact: ImpactNone, Doc: "Failovers within period; past it the group is left failed. 0: nodes - 1."},
				{Name: "period", Type: TypeDuration, Default: "6h", KnownAtPlan: true, Impact: ImpactNone, Doc: "The span that threshold counts in."},
			}},
			{Name: "failback", Doc: "Whether it goes back to a better owner.", Attributes: []Attribute{
				{Name: "mode", Type: TypeString, Default: FailbackPrevent, Values: []string{FailbackPrevent, FailbackImmediate, FailbackWindow}, KnownAtPlan: true, Impact: ImpactNone, Doc: "prevent (immediate where the cluster's configuration is hot_spare), immediate or window."},
				{Name: "window", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "Times of day, as 22:00-04:00."},
				{Name: "timezone", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "Of the window, as Europe/Stockholm; default UTC."},
				{Name: "delay", Type: TypeDuration, Default: "1m", KnownAtPlan: true, Impact: ImpactNone, Doc: "The node must have been up this long."},
			}},
		},
	}
}

// ResourceCommon is what resources of every type have.
func ResourceCommon() Schema {
	poll := func(name, interval, doc string) Block {
		return Block{Name: name, Doc: doc, Attributes: []Attribute{
			{Name: "interval", Type: TypeDuration, Default: interval, KnownAtPlan: true, Impact: ImpactNone, Doc: "Between two checks."},
			{Name: "timeout", Type: TypeDuration, Default: "10s", KnownAtPlan: true, Impact: ImpactNone, Doc: "Of one check."},
			{Name: "command", Type: TypeStrings, Impact: ImpactNone, Doc: "Exit status 0 means alive."},
			{Name: "tcp", Type: TypeString, Impact: ImpactNone, Doc: "host:port that accepts connections."},
			{Name: "http", Type: TypeString, Impact: ImpactNone, Doc: "URL that answers 2xx or 3xx."},
		}}
	}
	return Schema{
		Name: "resource",
		Doc:  "What resources of every type have.",
		Attributes: []Attribute{
			{Name: "depends_on", Type: TypeStrings, KnownAtPlan: true, Impact: ImpactNone, Doc: "Resources of the group that are online before it, all of them."},
			{Name: "depends_on_any", Type: TypeStrings, KnownAtPlan: true, Impact: ImpactNone, Doc: "And at least one of these."},
			{Name: "pending_timeout", Type: TypeDuration, Default: "3m", KnownAtPlan: true, Impact: ImpactNone, Doc: "Between two signs of progress while it starts or stops."},
			{Name: "separate_monitor", Type: TypeBool, KnownAtPlan: true, Impact: ImpactRestartResource, Doc: "A monitor process of its own, so that it can hurt no other resource; default: false."},
		},
		Blocks: []Block{
			poll("looks_alive", "5s", "The cheap check. Without command, tcp and http: the type's own."),
			poll("is_alive", "1m", "The thorough check."),
			{Name: "restart", Doc: "What happens when it fails.", Attributes: []Attribute{
				{Name: "action", Type: TypeString, Default: RestartRestart, Values: []string{RestartNone, RestartRestart}, KnownAtPlan: true, Impact: ImpactNone, Doc: "none or restart."},
				{Name: "threshold", Type: TypeNumber, Default: int64(3), KnownAtPlan: true, Impact: ImpactNone, Doc: "Restarts on one node within period."},
				{Name: "period", Type: TypeDuration, Default: "15m", KnownAtPlan: true, Impact: ImpactNone, Doc: "The span that threshold counts in."},
				{Name: "delay", Type: TypeDuration, Default: "0s", KnownAtPlan: true, Impact: ImpactNone, Doc: "Before each restart."},
				{Name: "affect_group", Type: TypeBool, Default: true, KnownAtPlan: true, Impact: ImpactNone, Doc: "Past the threshold the whole group fails over."},
			}},
			{Name: "checkpoint", Doc: "Files that go with the resource: kept in the cluster when they change while it is online, brought back before it comes online on another node. At most 16 MiB. A change counts from the resource's next start.", Attributes: []Attribute{
				{Name: "paths", Type: TypeStrings, KnownAtPlan: true, Impact: ImpactNone, Doc: "Files, by absolute path or in the node's directory; of a directory all files below it."},
				{Name: "command", Type: TypeStrings, Impact: ImpactNone, Doc: "Instead of paths: its output is kept."},
				{Name: "restore", Type: TypeStrings, Impact: ImpactNone, Doc: "With command: gets that output as its input."},
			}},
		},
	}
}

// ResourceTypes are the resource types by name, each with its own attributes.
func ResourceTypes() map[string]Schema {
	types := []Schema{
		{
			Name: "ip_address",
			Doc:  "An IP address that moves with its group.",
			Attributes: []Attribute{
				{Name: "address", Type: TypeString, Required: true, Impact: ImpactRestartResource, Doc: "The address, unique in the cluster; with or without its subnet's prefix length. Any but one in 127/8 is added to the node's network, which needs root."},
				{Name: "interface", Type: TypeString, Impact: ImpactRestartResource, Doc: "Interface on which it answers; default: the one that has an address in the same subnet."},
				{Name: "probe", Type: TypeDuration, Impact: ImpactNone, Doc: "How long to ask on the link whether somebody else has the address, before it is added; default: 25ms. 0s: not at all."},
			},
		},
		{
			Name: "generic_application",
			Doc:  "A program that is kept running.",
			Attributes: []Attribute{
				{Name: "command", Type: TypeStrings, Required: true, Impact: ImpactRestartResource, Doc: "Program and arguments; no shell."},
				{Name: "environment", Type: TypeStringMap, Impact: ImpactRestartResource, Doc: "Added to the environment."},
				{Name: "directory", Type: TypeString, Impact: ImpactRestartResource, Doc: "Working directory; default: the node's."},
				{Name: "user", Type: TypeString, Impact: ImpactRestartResource, Doc: "User that it runs as; default: the agent's."},
				{Name: "log_max_size", Type: TypeSize, Default: "10MiB", Impact: ImpactNone, Doc: "Size at which its log of stdout and stderr is rotated. A size, as 10MiB."},
				{Name: "log_keep", Type: TypeNumber, Default: int64(3), Impact: ImpactNone, Doc: "Rotated logs that are kept."},
				{Name: "stop_signal", Type: TypeString, Default: "TERM", Impact: ImpactNone, Doc: "Signal that asks it to stop.",
					Values: []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"}},
				{Name: "stop_timeout", Type: TypeDuration, Default: "10s", Impact: ImpactNone, Doc: "How long it may take before it is killed."},
			},
		},
	}
	types = append(types, Schema{
		Name: "script",
		Doc:  "Whatever two commands turn on and off.",
		Attributes: []Attribute{
			{Name: "start", Type: TypeStrings, Required: true, Impact: ImpactRestartResource, Doc: "Program and arguments, no shell. Exit status 0 means online; what it starts in the background is kept until it is stopped."},
			{Name: "stop", Type: TypeStrings, Impact: ImpactNone, Doc: "Exit status 0 means offline; else it is run again. It has to do no harm when there is nothing to stop."},
			{Name: "environment", Type: TypeStringMap, Impact: ImpactRestartResource, Doc: "Added to the environment."},
			{Name: "directory", Type: TypeString, Impact: ImpactRestartResource, Doc: "Working directory; default: the node's."},
			{Name: "stop_timeout", Type: TypeDuration, Default: "10s", Impact: ImpactNone, Doc: "How long one run of stop may take before it is killed."},
			{Name: "exclusive", Type: TypeBool, Default: false, Impact: ImpactNone, Doc: "Says that two nodes at once do no harm, or that the script keeps others out."},
		},
	})
	m := make(map[string]Schema, len(types))
	for _, t := range types {
		m[t.Name] = t
	}
	return m
}

// WithCommon is the whole shape of a resource of the type s: its own
// attributes and what every resource has.
func (s Schema) WithCommon() Schema {
	common := ResourceCommon()
	s.Attributes = append(append([]Attribute(nil), s.Attributes...), common.Attributes...)
	s.Blocks = append(append([]Block(nil), s.Blocks...), common.Blocks...)
	return s
}

// Attribute finds an attribute by name.
func (s Schema) Attribute(name string) (Attribute, bool) {
	for _, a := range s.Attributes {
		if a.Name == name {
			return a, true
		}
	}
	return Attribute{}, false
}

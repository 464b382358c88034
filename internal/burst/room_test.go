package burst

import (
	"testing"
	"testing/fstest"
)

func TestRoom(t *testing.T) {
	const mib = 1 << 20
	machine := func(available string, more map[string]string) fstest.MapFS {
		out := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:       25165824 kB\nMemFree:           12 kB\nMemAvailable:   " + available + " kB\n")}}
		for name, text := range more {
			out[name] = &fstest.MapFile{Data: []byte(text + "\n")}
		}
		return out
	}
	for _, tc := range []struct {
		name string
		root fstest.MapFS
		want uint64
	}{
		{"no Linux", fstest.MapFS{}, Floor},
		{"plenty", machine("20971520", nil), Most},
		{"2 GiB to spare", machine("2097152", nil), 512 * mib},
		{"next to nothing", machine("65536", nil), Floor},
		{"a container of 1 GiB", machine("20971520", map[string]string{
			"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "1073741824", "sys/fs/cgroup/memory.current": "0"}), 256 * mib},
		{"a limit above, mostly used", machine("20971520", map[string]string{
			"proc/self/cgroup":                      "1:name=systemd:/x\n0::/ci/job",
			"sys/fs/cgroup/ci/job/memory.max":       "max",
			"sys/fs/cgroup/ci/memory.max":           "4294967296",
			"sys/fs/cgroup/ci/memory.current":       "3221225472",
			"sys/fs/cgroup/other/memory.max":        "1",
			"sys/fs/cgroup/ci/job/memory.current":   "7",
			"sys/fs/cgroup/memory.current":          "4294967296",
			"sys/fs/cgroup/ci/job/deeper/cpu.stats": "1"}), 256 * mib},
		{"a container of 1 GiB, cgroup version 1", machine("20971520", map[string]string{
			"proc/self/cgroup":                            "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":  "1073741824", // the host's path is not seen in it
			"sys/fs/cgroup/memory/memory.usage_in_bytes":  "0",
			"sys/fs/cgroup/cpu,cpuacct/cpuacct.usage_sys": "1"}), 256 * mib},
		{"no limit, cgroup version 1", machine("2097152", map[string]string{
			"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}), 512 * mib},
		{"over its limit", machine("20971520", map[string]string{
			"proc/self/cgroup": "0::/ci", "sys/fs/cgroup/ci/memory.max": "1000000", "sys/fs/cgroup/ci/memory.current": "1000001"}), Floor},
	} {
		if got := room(tc.root); got != tc.want {
			t.Errorf("%s: %d MiB, want %d", tc.name, got/mib, tc.want/mib)
		}
	}
}

package cgroup

import "testing"

// Where a process's cgroup is, by what the kernel says of mounts and of the process.
func TestOf(t *testing.T) {
	const v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	const hybrid = "40 30 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 30 0:33 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 none rw\n"
	const container = "50 40 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	const scope = `60 40 0:26 /machine.slice/machine-a\134x2db.scope /sys/fs/cgroup rw - cgroup2 cgroup rw` + "\n"
	for _, tt := range []struct{ name, mounts, own, want string }{
		{"unified", v2, "0::/system.slice/clusterplan.service\n", "/sys/fs/cgroup/system.slice/clusterplan.service"},
		{"root", v2, "0::/\n", "/sys/fs/cgroup"},
		{"hybrid", hybrid, "4:cpu:/a\n0::/user\n", "/sys/fs/cgroup/uni fied/user"},
		{"container", container, "0::/docker/abc/x\n", "/sys/fs/cgroup/x"},
		{"container of systemd's", scope, `0::/machine.slice/machine-a\x2db.scope/x` + "\n", "/sys/fs/cgroup/x"},
		{"out of sight", container, "0::/docker/abcd\n", ""},
		{"namespace of another", v2, "0::/../x\n", ""},
		{"none mounted", "22 1 0:20 / /proc rw - proc proc rw\n", "0::/\n", ""},
		{"v1", v2, "4:cpu:/a\n", ""},
	} {
		got, err := of(tt.mounts, tt.own)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

package confdb

import "slices"

// kvWrite puts or deletes a key. The space's group, the epoch, the condition and
// the limits are checked here, where the order is final.
func (s *State) kvWrite(c Command) Result {
	w := c.KV
	if w.Seen != 0 && s.Revision > w.Seen+maxDone {
		return refuse(CodeStale, "the write was first sent more than %d updates ago: whether it was done then is not known any more; read the key, and write again", maxDone)
	}
	if why := CheckKey(w.Key); why != "" {
		return refuse(CodeInvalid, "%s", why)
	}
	if w.Space != ClusterSpace {
		if r := s.fence(w.Space, w.Epoch); r.Code != "" {
			return r
		}
	} else if w.Epoch != 0 {
		return refuse(CodeInvalid, "an epoch is a group's; keys of the cluster have none")
	}
	now, there := s.KV.Lookup(w.Space, w.Key)
	if w.If != nil && *w.If != now.Revision {
		switch {
		case *w.If == 0:
			return refuse(CodeMismatch, "key %q of %s is there already, at revision %d", w.Key, s.SpaceName(w.Space), now.Revision)
		case !there:
			return refuse(CodeMismatch, "key %q of %s is not there (any more); the write expects it at revision %d", w.Key, s.SpaceName(w.Space), *w.If)
		}
		return refuse(CodeMismatch, "key %q of %s is at revision %d, not %d: someone else wrote it", w.Key, s.SpaceName(w.Space), now.Revision, *w.If)
	}
	if w.Delete {
		if there {
			s.KV.delete(w.Space, w.Key)
			s.KV.changed(s.Revision, w.Space, w.Key)
		}
		return Result{}
	}
	if len(w.Value) > MaxValue {
		return refuse(CodeLimit, "a value of %d bytes is too large; the most is %d", len(w.Value), MaxValue)
	}
	size := kvSize(w.Key, w.Value)
	if there {
		size -= kvSize(w.Key, now.Value)
	}
	if size > 0 && s.KV.Bytes+size > MaxKV {
		return refuse(CodeLimit, "the key-value store is full: %d bytes are used, %d more don't fit into %d; delete keys that are not needed", s.KV.Bytes, size, MaxKV)
	}
	e := KVEntry{Value: w.Value, Revision: s.Revision, Created: now.Created}
	if !there {
		e.Created = s.Revision
	}
	s.KV.put(w.Space, w.Key, e)
	s.KV.changed(s.Revision, w.Space, w.Key)
	return Result{}
}

// fence refuses what an owner of an older epoch sends.
func (s *State) fence(group string, epoch uint64) Result {
	g := s.Groups[group]
	switch {
	case g == nil:
		return refuse(CodeNotFound, "no group has id %s", group)
	case epoch != 0 && epoch != g.Owner.Epoch:
		return refuse(CodeFenced, "group %s is at epoch %d, not %d: who wrote this owns it no longer", g.Spec.Name, g.Owner.Epoch, epoch)
	case epoch != 0 && g.Owner.Node == "":
		return refuse(CodeFenced, "nobody owns group %s now: its epoch %d is over", g.Spec.Name, epoch)
	}
	return Result{}
}

func kvSize(key string, value []byte) int64 { return int64(len(key) + len(value) + KVOverhead) }

// put keeps Keys and Bytes with the entries.
func (kv *KV) put(space, key string, e KVEntry) {
	if kv.Spaces == nil {
		kv.Spaces = map[string]*KVSpace{}
	}
	sp := kv.Spaces[space]
	if sp == nil {
		sp = &KVSpace{Entries: map[string]KVEntry{}}
		kv.Spaces[space] = sp
	}
	if was, there := sp.Entries[key]; there {
		kv.Bytes -= kvSize(key, was.Value)
	} else {
		at, _ := slices.BinarySearch(sp.Keys, key)
		sp.Keys = slices.Insert(sp.Keys, at, key)
	}
	kv.Bytes += kvSize(key, e.Value)
	sp.Entries[key] = e
}

func (kv *KV) delete(space, key string) {
	sp := kv.Spaces[space]
	kv.Bytes -= kvSize(key, sp.Entries[key].Value)
	delete(sp.Entries, key)
	at, _ := slices.BinarySearch(sp.Keys, key)
	sp.Keys = slices.Delete(sp.Keys, at, at+1)
	if len(sp.Keys) == 0 {
		delete(kv.Spaces, space)
	}
}

func (kv *KV) changed(revision uint64, space, key string) {
	if len(kv.Changes) >= maxKVChanges {
		kv.Compacted = kv.Changes[0].Revision
		kv.Changes = kv.Changes[1:]
	}
	kv.Changes = append(kv.Changes, KVChange{revision, space, key})
}

// drop forgets a space whose group is gone.
func (kv *KV) drop(revision uint64, space string) {
	sp := kv.Spaces[space]
	if sp == nil {
		return
	}
	// As a whole: one after the other it would be seconds, in which no lease is renewed.
	for key, e := range sp.Entries {
		kv.Bytes -= kvSize(key, e.Value)
	}
	delete(kv.Spaces, space)
	for _, key := range sp.Keys {
		kv.changed(revision, space, key)
	}
}

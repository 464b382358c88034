// Package store keeps what a driver persists: one bbolt file in a node's data
// directory, with the directory's server id and the lock that makes sure that
// one agent has it.
//
// Each Write is one synced transaction: after it returns nothing of it is
// lost, and a crash at any moment leaves either all of it or nothing. Values
// carry a checksum, so that a damaged file is told and never taken for an
// older state. A full disk or a failing one is an error, and the file stays
// as it was.
//
// The server id is made with the file, at random. So a directory that is new,
// or was emptied, is another server to the cluster: it can never vote again in
// the name of the one that it was.
package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// FileName is the database's file in the data directory.
const FileName = "confdb.bolt"

// Errors of Open and Load; they come wrapped in words that say where.
var (
	ErrLocked  = errors.New("another process has this data directory open")
	ErrDamaged = errors.New("the database file is damaged")
	ErrVersion = errors.New("the database file is of a newer version")
	ErrFull    = errors.New("the disk is full")
)

// reserved is the space that the file gets up front, in bytes: more than a log
// between two compactions and its snapshots need.
const reserved = 8 << 20

const format = 1

var (
	bucketMeta = []byte("meta")
	bucketLog  = []byte("log")

	keyFormat   = []byte("format")
	keyServer   = []byte("server_id")
	keyHard     = []byte("hard_state")
	keyProbe    = []byte("probe")
	keySnapshot = []byte("snapshot") // index 8, then the driver's bytes
)

// Store is an open data directory. Its methods are for one goroutine.
type Store struct {
	db     *bbolt.DB
	path   string
	server uint64
}

// Open opens a data directory and makes what is missing. The directory is
// locked until Close, or until the process is gone.
func Open(dir string) (*Store, error) {
	s, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the database in %s: %w", dir, err)
	}
	return s, nil
}

func open(dir string) (_ *Store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, FileName)
	_, err = os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		err = create(dir, path)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{path: path}
	var file *os.File // with the lock on it
	opt := options()
	opt.OpenFile = func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, perm)
		return file, err
	}
	err = guard(func() (err error) {
		if s.db, err = bbolt.Open(path, 0o600, opt); err != nil {
			var errno unix.Errno
			if !errors.As(err, &errno) && !errors.Is(err, berrors.ErrTimeout) {
				err = fmt.Errorf("%w: %v", ErrDamaged, err) // it says so in several ways
			}
			return err
		}
		if err := checkHeads(file); err != nil {
			return err
		}
		return s.db.View(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			if meta == nil || tx.Bucket(bucketLog) == nil {
				return fmt.Errorf("%w: its tables are missing", ErrDamaged)
			}
			f, err := number(meta, keyFormat)
			if err != nil {
				return err
			}
			if f != format {
				return fmt.Errorf("%w (%d): this program reads %d; use a newer program", ErrVersion, f, format)
			}
			s.server, err = number(meta, keyServer)
			return err
		})
	})
	if err != nil {
		s.Close()
		if file != nil {
			// Where bbolt panics it leaves the file locked, and the mapping would
			// keep the lock; if it closed the file, this does nothing.
			_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
			file.Close()
		}
		return nil, err
	}
	return s, nil
}

// options: the list of free pages is saved with each write (NoFreelistSync off).
// Without it bbolt searches all pages for them when it opens, in a goroutine
// of its own, where a damaged page would end the program.
func options() *bbolt.Options {
	return &bbolt.Options{
		Timeout:      200 * time.Millisecond, // an agent that was just killed lets go at once
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
	}
}

// create makes the file under another name first: a crash leaves no half one.
func create(dir, path string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err := guard(func() error {
		db, err := bbolt.Open(tmp, 0o600, options())
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucket(bucketMeta)
			if err != nil {
				return err
			}
			if _, err := tx.CreateBucket(bucketLog); err != nil {
				return err
			}
			var id [8]byte
			for binary.BigEndian.Uint64(id[:])>>1 == 0 {
				rand.Read(id[:])
				id[0] &= 0x7f // the topmost are Raft's own
			}
			if err := meta.Put(keyServer, seal(id[:])); err != nil {
				return err
			}
			return meta.Put(keyFormat, seal(binary.BigEndian.AppendUint64(nil, format)))
		})
		return errors.Join(err, db.Close())
	})
	if err != nil {
		return err
	}
	if err := reserve(tmp); err != nil {
		return err
	}
	// Two agents that start at once: the one that finds a file has lost.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// reserve has the file system set blocks aside behind the file's end, so that
// a disk that others fill leaves the log its room. Where it can't, so be it.
func reserve(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, reserved)
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: the database needs %d MiB", ErrFull, reserved>>20)
	}
	return nil
}

// Close gives the directory free.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// ServerID is the data directory's own number, never 0.
func (s *Store) ServerID() uint64 { return s.server }

// Load reads all that is stored.
func (s *Store) Load() (confdb.Stored, error) {
	var st confdb.Stored
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			var err error
			if st.HardState, err = unseal(meta.Get(keyHard), keyHard); err != nil {
				return err
			}
			snap, err := unseal(meta.Get(keySnapshot), keySnapshot)
			if err != nil {
				return err
			}
			if snap != nil {
				if len(snap) < 8 {
					return fmt.Errorf("%w: its snapshot is cut short", ErrDamaged)
				}
				st.SnapshotIndex, st.Snapshot = binary.BigEndian.Uint64(snap), snap[8:]
			}
			next := st.SnapshotIndex + 1
			return tx.Bucket(bucketLog).ForEach(func(k, v []byte) error {
				e, err := unseal(v, k)
				if err != nil {
					return err
				}
				if len(k) != 8 || len(e) < 8 || binary.BigEndian.Uint64(k) != next {
					return fmt.Errorf("%w: its log has no entry %d", ErrDamaged, next)
				}
				st.Entries = append(st.Entries, confdb.LogEntry{Index: next, Term: binary.BigEndian.Uint64(e), Data: e[8:]})
				next++
				return nil
			})
		})
	})
	if err != nil {
		return confdb.Stored{}, fmt.Errorf("read the database %s: %w", s.path, err)
	}
	return st, nil
}

// Write makes p durable: all of it, or on an error nothing.
func (s *Store) Write(p confdb.Persist) error {
	if p.Empty {
		return nil
	}
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return write(tx, p) })
	})
	if err != nil {
		return fmt.Errorf("write the database %s: %w", s.path, err)
	}
	return nil
}

// Probe tells whether a write of some size would succeed now. It leaves nothing.
func (s *Store) Probe() error {
	err := guard(func() error {
		if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyProbe, make([]byte, 256<<10)) }); err != nil {
			return err
		}
		return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyProbe) })
	})
	if err != nil {
		return fmt.Errorf("write the database %s: %w", s.path, err)
	}
	return nil
}

func write(tx *bbolt.Tx, p confdb.Persist) error {
	meta, log := tx.Bucket(bucketMeta), tx.Bucket(bucketLog)
	log.FillPercent = 0.9 // it grows at its end
	if p.HardState != nil {
		if err := meta.Put(keyHard, seal(p.HardState)); err != nil {
			return err
		}
	}
	if p.Snapshot != nil {
		snap := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(p.Snapshot)), p.SnapshotIndex)
		if err := meta.Put(keySnapshot, seal(append(snap, p.Snapshot...))); err != nil {
			return err
		}
		last := uint64(1<<64 - 1)
		if p.KeepTail {
			last = p.SnapshotIndex
		}
		if err := drop(log, 0, last); err != nil {
			return err
		}
	}
	if len(p.Entries) == 0 {
		return nil
	}
	if err := drop(log, p.Entries[0].Index, 1<<64-1); err != nil {
		return err
	}
	for _, e := range p.Entries {
		v := binary.BigEndian.AppendUint64(make([]byte, 0, 12+len(e.Data)), e.Term)
		if err := log.Put(key(e.Index), seal(append(v, e.Data...))); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes the entries from first to last.
func drop(log *bbolt.Bucket, first, last uint64) error {
	var doomed []uint64 // deleted afterwards: a cursor doesn't stand that
	c := log.Cursor()
	for k, _ := c.Seek(key(first)); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.Next() {
		doomed = append(doomed, binary.BigEndian.Uint64(k))
	}
	for _, index := range doomed {
		if err := log.Delete(key(index)); err != nil {
			return err
		}
	}
	return nil
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends a checksum. v is the caller's to append to.
func seal(v []byte) []byte {
	return binary.BigEndian.AppendUint32(v[:len(v):len(v)], crc32.Checksum(v, castagnoli))
}

// unseal checks it and copies the value out of the file.
func unseal(v, name []byte) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	n := len(v) - 4
	if n < 0 || crc32.Checksum(v[:n], castagnoli) != binary.BigEndian.Uint32(v[n:]) {
		return nil, fmt.Errorf("%w: the checksum of %q doesn't match", ErrDamaged, name)
	}
	return append(make([]byte, 0, n), v[:n]...), nil
}

func number(b *bbolt.Bucket, name []byte) (uint64, error) {
	v, err := unseal(b.Get(name), name)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: %s is missing", ErrDamaged, name)
	}
	return binary.BigEndian.Uint64(v), nil
}

// guard turns what bbolt says, and what it panics with on damaged pages, into
// this package's errors.
func guard(f func() error) (err error) {
	defer fault()()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
		switch {
		case err == nil:
		case errors.Is(err, berrors.ErrTimeout):
			err = fmt.Errorf("%w: is its agent running?", ErrLocked)
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			err = fmt.Errorf("%w: %v; make room on it", ErrFull, err)
		}
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w; if the cluster has other nodes, move the data directory away and join this one again", err)
		}
	}()
	return f()
}

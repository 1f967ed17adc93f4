/* journal_vfs: the writer's way to its log and its database, for two purposes.
 *
 * A commit is one write and one sync: SQLite writes each frame of its write-ahead log by itself and in two pieces; here the frames of
 * a transaction are gathered and written at once. So are neighbouring pages that a checkpoint moves into the database.
 *
 * A good sync means what SQLite takes it for. When Linux cannot write pages back, it tells so once, by a sync that fails, and takes
 * them for written from then on: they can still be read, but the next sync leaves them out, says that all is well, and a power cut
 * brings out what is missing. SQLite writes a failed commit again, and repeats a failed checkpoint, but writes neither the commits
 * before it that nobody synced (DB_LAZY), nor what checkpoints moved that a reader kept from the end of the log: that counts as moved
 * before it is synced. So what was written since the last good sync is noted, and after a failed one it is all written again before
 * the next.
 *
 * It is an SQLite VFS over the default one, which does all the work: names, locks, shared memory, short writes, interrupted calls. All
 * files but log and database are the default's own. Of the log, a write is gathered if it goes on where the one before ended and is a
 * frame's header or the page behind one; of the database, if it is a checkpoint's, which SQLite tells (SQLITE_FCNTL_CKPT_START,
 * _DONE). Any other is written at once, behind what was gathered.
 *
 *  V1  When the write of the last piece of a commit is done, nothing is gathered any more: what SQLite then syncs, or shows to
 *      other connections unsynced, is in the file. So what is gathered is of no commit, and can be lost without harm.
 *  V2  The file is read, measured, cut or synced only when nothing is gathered any more.
 *  V3  Writes reach the file in SQLite's order, each byte once but for V5 and V6.
 *  V4  If writing what was gathered fails, the operation that asked for it fails with the default's code, and what was gathered is
 *      forgotten: SQLite then rolls back, and writes these frames' places anew, or gives up the checkpoint and moves these pages
 *      again.
 *  V5  A sync that succeeds has synced all that was written before it, also what an earlier one failed to sync: then those bytes
 *      are read and written again first. While that, or the sync, fails, it stays so for the next. What the kernel had dropped from
 *      its cache by then, or does not show any more (btrfs), is lost to us, too.
 *  V6  Of a log that is there when it is opened, all is written again before its first sync: whoever left it may have ended
 *      after a sync that failed. Its database needs nothing like that: when SQLite recovers the log, it moves all of it again
 *      (it does not recover it while another program keeps the journal open all the time).
 *
 *  V7  A checkpoint hears of each write that fails. It asks for no answer when it tells that all is moved (_DONE), so the cut that
 *      follows fails in place of the write. No cut follows where a reader keeps the checkpoint from the end of the log, and then its
 *      pages count as moved at once: so those are not gathered. Such a reader refuses the checkpoint the lock of its mark.
 *  V8  A log of which nothing was written since its last good sync is not synced once more, as SQLite does before each checkpoint.
 *
 * The format: https://www.sqlite.org/fileformat2.html, section 4.1; the locks: https://www.sqlite.org/walformat.html, section 2.3. */
#ifndef JOURNAL_VFS_H
#define JOURNAL_VFS_H

/* Its name for sqlite3_open_v2; registered at the first call, over what is the default then. NULL without memory. Any thread; a
 * file belongs to its connection. */
const char *vfs_register(void);

#endif

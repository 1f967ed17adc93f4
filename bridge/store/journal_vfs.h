/* journal_vfs: the way of the writer's log to its file. SQLite writes each frame of its write-ahead log by itself and in two pieces;
 * here the frames of a transaction are gathered and written at once, and so a commit is one write and one sync.
 *
 * It is an SQLite VFS over the default one, which does all the work: names, locks, shared memory, short writes, interrupted calls. All
 * files but the log are the default's own. Of the log, a write is gathered if it goes on where the one before ended and is a frame's
 * header or the page behind one; any other is written at once, behind what was gathered.
 *
 *  V1  When the write of the last piece of a commit is done, nothing is gathered any more: what SQLite then syncs, or shows to
 *      other connections unsynced, is in the file. So what is gathered is of no commit, and can be lost without harm.
 *  V2  The file is read, measured, cut or synced only when nothing is gathered any more.
 *  V3  Writes reach the file in SQLite's order, each byte once.
 *  V4  If writing what was gathered fails, the operation that asked for it fails with the default's code, and what was gathered is
 *      forgotten: SQLite then rolls back, and writes these frames' places anew.
 *
 * The format: https://www.sqlite.org/fileformat2.html, section 4.1. */
#ifndef JOURNAL_VFS_H
#define JOURNAL_VFS_H

/* Its name for sqlite3_open_v2; registered at the first call, over what is the default then. NULL without memory. Any thread; a
 * file belongs to its connection. */
const char *vfs_register(void);

#endif

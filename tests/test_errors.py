"""What becomes of errors on their way to a user."""

import errno
import os
import pickle

import numpy as np
import pytest

from irjax.errors import (
    CommandExit,
    FileError,
    MissingFileError,
    UsageError,
    UserError,
    check_folder,
    reading,
    stopping,
    writing,
)


@pytest.mark.parametrize("block, said", [(reading, "cannot read here/a: "), (writing, "cannot write here/a: ")])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENOSPC, errno.ENAMETOOLONG])
def test_what_the_system_refuses_names_the_file(block, said, number):
    with pytest.raises(FileError) as raised, block("here/a"):
        raise OSError(number, os.strerror(number), "/somewhere/else")
    assert str(raised.value) == said + os.strerror(number)
    assert isinstance(raised.value, UserError) and isinstance(raised.value, OSError)
    assert type(pickle.loads(pickle.dumps(raised.value))) is FileError


def test_files_that_are_absent_or_no_text(tmp_path):
    with pytest.raises(MissingFileError, match="there is no file or folder .*absent"), reading(tmp_path / "absent"):
        (tmp_path / "absent").read_bytes()
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(FileError, match="bytes: not a text file in UTF-8"), reading(tmp_path / "bytes"):
        (tmp_path / "bytes").read_text(encoding="utf-8")
    assert check_folder(tmp_path) == tmp_path
    with pytest.raises(MissingFileError, match="there is no folder .*bytes"):
        check_folder(tmp_path / "bytes")
    with pytest.raises(FileError, match="File name too long"):
        check_folder(tmp_path / ("x" * 300))


@pytest.mark.parametrize("block", [reading, writing])
def test_errors_of_the_program_pass(block):
    with pytest.raises(ValueError, match="cannot reshape") as raised, block("a"):
        np.zeros(3).reshape(2)
    assert not isinstance(raised.value, UserError)
    for error in (UsageError("mine"), BrokenPipeError()):
        with pytest.raises(type(error)) as raised, block("a"):
            raise error
        assert raised.value is error


@pytest.mark.parametrize("error, status", [(UserError("a\n b"), 1), (FileError("a b"), 1), (UsageError("a b"), 2)])
def test_a_command_ends_in_one_line(error, status, capsys):
    with pytest.raises(CommandExit) as stopped, stopping():
        raise error
    assert stopped.value.code == status and str(stopped.value) == "error: a b"
    assert capsys.readouterr().err == "error: a b\n"
    with pytest.raises(ValueError, match="cannot reshape"), stopping():
        np.zeros(3).reshape(2)

from holter.row_writer import RowWriter as RowWriter
